//! Numbers of system users. A static program asks no name service; these have a userdb record in the verified root, or a
//! line in /etc/passwd.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::base::failure::{Doing, Failure};
use crate::pki::Owner;

/// Where systemd and the builder have the records of system users, without a leading slash.
const RECORDS: &str = "usr/lib/userdb";

#[derive(Deserialize)]
struct Record {
    uid: u32,
    gid: u32,
}

/// User and group of the system user `name` on the node at `root`.
pub(super) fn find(root: &Path, name: &str) -> Result<Owner, Failure> {
    let doing = || format!("looking for the system user {name}");
    if let Ok(text) = fs::read(root.join(RECORDS).join(format!("{name}.user"))) {
        let Record { uid, gid } = serde_json::from_slice(&text).doing(doing())?;
        return Ok(Owner { uid, gid });
    }
    let text = fs::read_to_string(root.join("etc/passwd")).doing(doing())?;
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(name);
        let (uid, gid) = (fields.nth(1)?, fields.next()?);
        is_it.then(|| Some(Owner { uid: uid.parse().ok()?, gid: gid.parse().ok()? }))?
    });
    found.ok_or_else(|| {
        let cause = format!("neither /{RECORDS} nor /etc/passwd has it");
        Failure::new(doing(), cause)
            .help("the manifest names it in `system_users`, as components/etcd.yaml does")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Chain;

    #[test]
    fn a_record_counts_before_a_line() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(RECORDS)).unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/bash\n\nbad\netcd:x:101:102::/:/x\netcd2:x:7:8::/:/x\n";
        fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        assert_eq!(find(root.path(), "etcd").unwrap(), Owner { uid: 101, gid: 102 });
        assert_eq!(find(root.path(), "etcd2").unwrap(), Owner { uid: 7, gid: 8 });
        let record = r#"{"disposition": "system", "gid": 992, "uid": 993, "userName": "etcd"}"#;
        fs::write(root.path().join(RECORDS).join("etcd.user"), record).unwrap();
        assert_eq!(find(root.path(), "etcd").unwrap(), Owner { uid: 993, gid: 992 });
        let text = Chain(&find(root.path(), "nosuch").unwrap_err()).to_string();
        assert!(text.contains("nosuch") && text.contains("system_users"), "{text}");
    }
}
