//! What makes etcd a member of a cluster: a drop-in for its unit, and the list for keller's own agent.

use std::net::IpAddr;

use super::super::Document;
use super::super::cluster::{CLUSTER, Cluster};
use super::{Image, READABLE, Rendered};
use crate::pki::etcd;

const UNIT: &str = "/usr/lib/systemd/system/etcd.service";
/// After those of the image, whose variables it sets anew.
const DROP_IN: &str = "/run/systemd/system/etcd.service.d/50-keller-cluster.conf";

pub(super) fn render(document: &Document, image: &dyn Image, rendered: &mut Rendered) {
    let Some(cluster) = &document.cluster else { return };
    if image.read(UNIT).is_none() {
        let what = "`cluster` makes etcd a member, and this image has no etcd: include components/etcd.yaml";
        rendered.warnings.push(what.to_owned());
        return;
    }
    let text = serde_json::to_string_pretty(cluster).expect("names and addresses");
    rendered.file(CLUSTER, READABLE, text + "\n");
    rendered.file(DROP_IN, READABLE, drop_in(cluster));
}

fn drop_in(cluster: &Cluster) -> String {
    let url = |ip: IpAddr, port: u16| format!("https://{}", std::net::SocketAddr::new(ip, port));
    let own = cluster.address();
    let all = cluster.members.iter().map(|(name, ip)| format!("{name}={}", url(*ip, etcd::PEER_PORT)));
    let environment = [
        ("ETCD_NAME", cluster.me.clone()),
        // Not that of the single member, which this node may have been.
        ("ETCD_DATA_DIR", format!("{}/{}", etcd::DATA, cluster.name)),
        (
            "ETCD_LISTEN_CLIENT_URLS",
            format!("https://{},{}", etcd::CLIENT_ADDRESS, url(own, etcd::CLIENT_PORT)),
        ),
        ("ETCD_ADVERTISE_CLIENT_URLS", url(own, etcd::CLIENT_PORT)),
        ("ETCD_LISTEN_PEER_URLS", url(own, etcd::PEER_PORT)),
        ("ETCD_INITIAL_ADVERTISE_PEER_URLS", url(own, etcd::PEER_PORT)),
        ("ETCD_INITIAL_CLUSTER", all.collect::<Vec<_>>().join(",")),
        ("ETCD_INITIAL_CLUSTER_TOKEN", cluster.name.clone()),
        // Ten beats long, as etcd's documentation has it, and no election where a busy machine is late.
        ("ETCD_HEARTBEAT_INTERVAL", "300".to_owned()),
        ("ETCD_ELECTION_TIMEOUT", "3000".to_owned()),
    ];
    let mut text = "[Unit]\n\
                    Wants=network-online.target\n\
                    After=network-online.target\n\n\
                    [Service]\n\
                    # A member may wait for others for hours.\n\
                    TimeoutStartSec=infinity\n\
                    ExecStartPre=+/usr/bin/keller agent member\n"
        .to_owned();
    // Whoever loses the data from now on is not one of the first any more.
    text += &format!("ExecStartPost=-+/usr/bin/rm -f {}\n", etcd::AGREED);
    for (name, value) in environment {
        text += &format!("Environment={name}={value}\n");
    }
    // It says whether etcd begins or joins a cluster, and is read when ExecStartPre= has written it.
    text + &format!("EnvironmentFile=-{}\n", etcd::ENVIRONMENT)
}
