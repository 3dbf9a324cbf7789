//! The filter of system calls: podman's own profile, applied to what a container may do.
//!
//! Source: seccomp.json of containers/common, as Debian's package golang-github-containers-common ships it, and
//! how `pkg/seccomp` of that project makes a filter of it. tests/judges/podman.rs holds both to be the same.

use serde::Deserialize;
use serde_json::{Value, json};

/// The profile, copied as it is. Apache-2.0.
const PROFILE: &str = include_str!("seccomp.json");

/// The machine of keller's nodes, as the profile names it.
const ARCH: &str = "amd64";
const NATIVE: &str = "SCMP_ARCH_X86_64";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: String,
    default_errno_ret: u32,
    #[serde(rename = "defaultErrno")]
    _default_errno: String,
    arch_map: Vec<Architecture>,
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Architecture {
    architecture: String,
    sub_architectures: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    names: Vec<String>,
    action: String,
    args: Option<Vec<Argument>>,
    #[serde(rename = "comment")]
    _comment: String,
    includes: Filter,
    excludes: Filter,
    errno_ret: Option<u32>,
    #[serde(rename = "errno")]
    _errno: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u32,
    value: u64,
    value_two: u64,
    op: String,
}

/// For whom a rule is. An unknown condition fails the parsing: a rule must not hold for more than it says.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct Filter {
    arches: Vec<String>,
    caps: Vec<String>,
}

impl Rule {
    fn holds(&self, capabilities: &[&str]) -> bool {
        let has = |capability: &String| capabilities.contains(&capability.as_str());
        let is_ours = |filter: &Filter| filter.arches.iter().any(|arch| arch == ARCH);
        (self.includes.arches.is_empty() || is_ours(&self.includes))
            && self.includes.caps.iter().all(has)
            && !is_ours(&self.excludes)
            && !self.excludes.caps.iter().any(has)
    }

    fn to_json(&self) -> Value {
        let mut rule = json!({ "names": self.names, "action": self.action });
        if let Some(errno) = self.errno_ret {
            rule["errnoRet"] = json!(errno);
        }
        let args: Vec<_> = self.args.iter().flatten().map(Argument::to_json).collect();
        if !args.is_empty() {
            rule["args"] = json!(args);
        }
        rule
    }
}

impl Argument {
    fn to_json(&self) -> Value {
        let mut argument = json!({ "index": self.index, "value": self.value, "op": self.op });
        if self.value_two != 0 {
            argument["valueTwo"] = json!(self.value_two);
        }
        argument
    }
}

/// `linux.seccomp` of the runtime specification, for a process with these capabilities.
pub fn filter(capabilities: &[&str]) -> Value {
    let profile: Profile = serde_json::from_str(PROFILE).expect("a unit test reads the profile");
    let native = profile.arch_map.into_iter().find(|map| map.architecture == NATIVE);
    let architectures = native.map(|map| [vec![map.architecture], map.sub_architectures].concat());
    let rules = profile.syscalls.iter().filter(|rule| rule.holds(capabilities));
    json!({
        "defaultAction": profile.default_action,
        "defaultErrnoRet": profile.default_errno_ret,
        "architectures": architectures.unwrap_or_else(|| vec![NATIVE.to_owned()]),
        "syscalls": rules.map(Rule::to_json).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a rule without arguments allows `call`.
    fn allows(capabilities: &[&str], call: &str) -> bool {
        let filter = filter(capabilities);
        let rules = filter["syscalls"].as_array().unwrap().clone();
        rules.iter().any(|rule| {
            rule["names"].as_array().unwrap().contains(&json!(call))
                && rule["action"] == "SCMP_ACT_ALLOW"
                && rule.get("args").is_none()
        })
    }

    #[test]
    fn rules_follow_capabilities_and_the_machine() {
        assert!(allows(&[], "read") && allows(&[], "arch_prctl") && !allows(&[], "riscv_flush_icache"));
        assert!(!allows(&[], "chroot") && allows(&["CAP_SYS_CHROOT"], "chroot"));
        assert!(!allows(&[], "bpf") && allows(&["CAP_BPF"], "bpf"));
        for call in ["kexec_load", "userfaultfd", "init_module", "io_uring_setup", "no_such_call"] {
            assert!(!allows(&["CAP_SYS_CHROOT"], call), "{call}");
        }
        let filter = filter(&[]);
        assert_eq!(filter["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(filter["architectures"], json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]));
    }
}
