//! `keller boot`: an image under QEMU. Also what `keller run` does once its image is built.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use ssh_key::{Algorithm, LineEnding, PrivateKey};

use super::terminal::{self, Terminal};
use super::{Global, context, time};
use crate::base::Size;
use crate::qemu::machine::DiskFormat;
use crate::qemu::{Accelerator, Forward, Machine, Vm};

/// Arguments of `keller boot`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    keller boot out/node_1.0.0.raw\n  \
    keller boot --persist --forward 8080:80 out/node_1.0.0.raw\n  \
    keller boot --expect 'login:' --timeout 180 out/node_1.0.0.raw")]
pub struct BootArgs {
    /// A raw or qcow2 image.
    pub image: PathBuf,
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Where QEMU comes from.
    #[command(flatten)]
    pub inputs: context::InputArgs,
}

/// What `keller boot` and `keller run` let one set of the machine.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Machine")]
pub struct MachineArgs {
    /// Keep what the guest writes in the image, and its firmware's variables beside it.
    #[arg(long)]
    pub persist: bool,
    /// Memory, at least 512MiB.
    #[arg(long, default_value = "2GiB")]
    pub memory: Size,
    /// Virtual processors.
    #[arg(long, default_value_t = 2)]
    pub cpus: u32,
    /// Emulate even where KVM works.
    #[arg(long)]
    pub no_kvm: bool,
    /// Lead a port of 127.0.0.1 (0: any that is free) to one of the guest; repeatable.
    #[arg(long, value_name = "HOST:GUEST", value_parser = parse_forward)]
    pub forward: Vec<Forward>,
    /// Public ssh key (file) for user core, besides the one that is made for this run.
    #[arg(long, value_name = "FILE")]
    pub ssh_key: Option<PathBuf>,
    /// Write the private key made for this run to FILE, for scripts.
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// End with success as soon as TEXT stands on the console; fail when it does not in time.
    #[arg(long, value_name = "TEXT")]
    pub expect: Option<String>,
    /// How long --expect waits, such as 5min; a number alone is seconds.
    #[arg(long, value_name = "TIME", default_value = "300", value_parser = time::seconds)]
    pub timeout: Duration,
    /// Sectors of the disk: 512 or 4096 bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 512)]
    pub sector_size: u32,
    /// A further argument for QEMU; repeatable.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub qemu_arg: Vec<String>,
}

fn parse_forward(text: &str) -> Result<Forward, String> {
    let parse = || {
        let (host, guest) = text.split_once(':')?;
        Some(Forward { host: host.parse().ok()?, guest: guest.parse().ok()? })
    };
    parse().ok_or_else(|| "expected two port numbers, such as 8080:80".to_owned())
}

/// Boots the image.
pub fn run(args: BootArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let guest = Guest { image: &args.image, ports: &[], what: args.image.display().to_string() };
    boot(&guest, &args.machine, &args.inputs, global)
}

/// What is to be booted.
pub struct Guest<'a> {
    /// The image.
    pub image: &'a Path,
    /// Ports of the guest that serve pages.
    pub ports: &'a [u16],
    /// For messages.
    pub what: String,
}

/// A port that is looked at until something answers there.
struct Service {
    forward: Forward,
    answered: AtomicBool,
}

/// Looks at the services in the background until all have answered.
fn watch(services: &Arc<Vec<Service>>) {
    let services = Arc::clone(services);
    std::thread::spawn(move || {
        while !all_answered(&services) {
            for service in services.iter().filter(|service| !service.answered.load(Ordering::SeqCst)) {
                service.answered.store(answers(service.forward), Ordering::SeqCst);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    });
}

fn all_answered(services: &[Service]) -> bool {
    services.iter().all(|service| service.answered.load(Ordering::SeqCst))
}

/// Boots `guest` and stays until it ends, is ended, or shows what was expected.
pub fn boot(
    guest: &Guest<'_>,
    args: &MachineArgs,
    inputs: &context::InputArgs,
    global: &Global,
) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let format = disk_format(guest.image)?;
    let program = context::qemu(inputs, global)?;
    let scratch = tempfile::Builder::new().prefix("keller-").tempdir().context("making a scratch folder")?;
    let variables = firmware_variables(args.persist, guest.image, scratch.path(), program.variables())?;
    let identity = args.identity.clone().unwrap_or_else(|| scratch.path().join("id_ed25519"));
    let mut keys = make_key(&identity)?;
    if let Some(file) = &args.ssh_key {
        keys.push_str(&fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?);
    }

    let mut forwards = Vec::new();
    for asked in &args.forward {
        let any = || Forward::free(asked.guest).context("looking for a free port");
        forwards.push(if asked.host == 0 { any()? } else { *asked });
    }
    let mut services = Vec::new();
    for port in std::iter::once(22).chain(guest.ports.iter().copied()) {
        let forward = match forwards.iter().find(|forward| forward.guest == port) {
            Some(forward) => *forward,
            None => {
                let forward = Forward::free(port).context("looking for a free port")?;
                forwards.push(forward);
                forward
            }
        };
        services.push(Service { forward, answered: AtomicBool::new(false) });
    }
    let accelerator = if args.no_kvm { Accelerator::Tcg } else { Accelerator::probe() };
    let machine = Machine {
        disk: guest.image.to_owned(),
        format,
        persist: args.persist,
        sector_size: args.sector_size,
        memory_mib: u32::try_from(args.memory.bytes() >> 20).context("that much memory cannot be")?.max(512),
        cpus: args.cpus.max(1),
        accelerator,
        forwards,
        credentials: vec![("ssh.authorized_keys.core".to_owned(), keys.into_bytes())],
        variables,
        monitor: scratch.path().join("monitor"),
        no_reboot: false,
        extra: args.qemu_arg.iter().map(Into::into).collect(),
    };

    if !global.quiet {
        let how = match accelerator {
            Accelerator::Kvm => "with KVM",
            Accelerator::Tcg => "under emulation (no KVM here): this takes a minute or two",
        };
        eprintln!("booting {} {how}; Ctrl-C ends it", guest.what);
    }
    let shown: Option<crate::qemu::process::Sink> = (!global.quiet && !global.json).then(|| {
        Box::new(|bytes: &[u8]| {
            let mut output = io::stdout().lock();
            let _ = output.write_all(bytes).and_then(|()| output.flush());
        }) as crate::qemu::process::Sink
    });
    let interrupted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&interrupted))?;
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&interrupted))?;
    let mut vm = Vm::start(&program, &machine, shown)?;
    let services = Arc::new(services);
    let others: Vec<_> = machine
        .forwards
        .iter()
        .filter(|forward| services.iter().all(|service| service.forward != **forward))
        .copied()
        .collect();
    watch(&services);
    let _terminal = io::stdout().is_terminal().then(Terminal::take).flatten();
    if !global.json {
        terminal::forward_keys(vm.input());
    }

    let deadline = begun + args.timeout;
    let (mut seen, mut reported) = (0, false);
    loop {
        if interrupted.swap(false, Ordering::SeqCst) {
            return end(&mut vm, args.persist, &interrupted);
        }
        if let Some(text) = &args.expect {
            // A short slice, so that Ctrl-C and the end of QEMU are seen as well.
            let came = vm.console().position();
            match vm.expect(text, seen, Duration::from_millis(200)) {
                Ok(_) => {
                    tell_found(text, begun, global);
                    return Ok(ExitCode::SUCCESS);
                }
                Err(crate::qemu::QemuError::Timeout { .. }) if Instant::now() < deadline => {
                    seen = came.saturating_sub(text.len());
                }
                Err(crate::qemu::QemuError::Timeout { what, tail, .. }) => {
                    let timeout = args.timeout;
                    return Err(crate::qemu::QemuError::Timeout { what, timeout, tail }.into());
                }
                Err(error) => return Err(error.into()),
            }
            continue;
        }
        if let Some(status) = vm.wait(Duration::from_millis(200))? {
            if status.success() {
                return Ok(ExitCode::SUCCESS);
            }
            bail!("QEMU ended with {}\n{}", crate::qemu::process::show(status), vm.errors().trim_end());
        }
        if !reported && all_answered(&services) {
            reported = true;
            report(&services, &others, &identity, begun, guest, global);
        }
    }
}

fn end(vm: &mut Vm, persist: bool, interrupted: &AtomicBool) -> anyhow::Result<ExitCode> {
    if persist {
        eprintln!("\nshutting the guest down; Ctrl-C again cuts its power");
        let deadline = Instant::now() + Duration::from_secs(90);
        let mut down = vm.power_down(Duration::ZERO)?;
        while !down && Instant::now() < deadline && !interrupted.load(Ordering::SeqCst) {
            down = vm.wait(Duration::from_millis(200))?.is_some();
        }
        if !down {
            eprintln!("the guest did not shut down: power cut");
        }
    }
    vm.kill();
    Ok(ExitCode::from(130))
}

/// The guest ends with this program, so that there is nothing to connect to.
fn tell_found(text: &str, begun: Instant, global: &Global) {
    let seconds = begun.elapsed().as_secs_f64();
    if global.json {
        println!("{}", json!({ "found": text, "seconds": seconds }));
    } else if !global.quiet {
        eprintln!("\r\n{text:?} stood on the console after {seconds:.0} s\r");
    }
}

fn report(
    services: &[Service],
    others: &[Forward],
    identity: &Path,
    begun: Instant,
    guest: &Guest<'_>,
    global: &Global,
) {
    let ssh = services.iter().find(|service| service.forward.guest == 22);
    let ssh = ssh.map(|service| {
        format!(
            "ssh -i {} -p {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null core@127.0.0.1",
            identity.display(),
            service.forward.host
        )
    });
    let urls: Vec<_> = services
        .iter()
        .filter(|service| service.forward.guest != 22)
        .map(|service| format!("http://127.0.0.1:{}/", service.forward.host))
        .collect();
    let seconds = begun.elapsed().as_secs_f64();
    if global.json {
        let forwards: Vec<_> = others.iter().map(|forward| [forward.host, forward.guest]).collect();
        println!(
            "{}",
            json!({ "ready": true, "seconds": seconds, "urls": urls, "ssh": ssh, "forwards": forwards })
        );
        return;
    }
    eprintln!("\r\n{} is ready after {seconds:.0} s", guest.what);
    for url in urls {
        eprintln!("\r  {url}");
    }
    for forward in others {
        eprintln!("\r  127.0.0.1:{} leads to port {}", forward.host, forward.guest);
    }
    if let Some(ssh) = ssh {
        eprintln!("\r  {ssh}\r");
    }
}

/// Whether a program in the guest answers: QEMU itself accepts connections whether or not one does.
fn answers(forward: Forward) -> bool {
    let attempt = || -> io::Result<bool> {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], forward.host));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        if forward.guest != 22 {
            stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        }
        let mut first = [0; 4];
        stream.read_exact(&mut first)?;
        Ok(&first == if forward.guest == 22 { b"SSH-" } else { b"HTTP" })
    };
    attempt().unwrap_or(false)
}

fn disk_format(image: &Path) -> anyhow::Result<DiskFormat> {
    let mut magic = [0; 4];
    let mut file = File::open(image).with_context(|| format!("opening {}", image.display()))?;
    file.read_exact(&mut magic).with_context(|| format!("{} is no disk image", image.display()))?;
    Ok(if &magic == b"QFI\xfb" { DiskFormat::Qcow2 } else { DiskFormat::Raw })
}

/// A file of the machine's own with the firmware's variables: beside the image when changes are kept.
fn firmware_variables(persist: bool, image: &Path, scratch: &Path, blank: &Path) -> anyhow::Result<PathBuf> {
    let target = if persist { image.with_extension("uefi-vars") } else { scratch.join("uefi-vars") };
    if !target.exists() {
        let bytes = fs::read(blank).with_context(|| format!("reading {}", blank.display()))?;
        crate::base::atomic::write(&target, bytes)
            .with_context(|| format!("writing {}", target.display()))?;
    }
    Ok(target)
}

/// By this comment a key is known to be of no further use.
const KEY_COMMENT: &str = "keller, for one run";

/// Makes a key pair for this run, writes the private half to `identity`, gives the public line.
fn make_key(identity: &Path) -> anyhow::Result<String> {
    let is_ours = |text: &str| PrivateKey::from_openssh(text).is_ok_and(|key| key.comment() == KEY_COMMENT);
    if fs::read(identity).is_ok_and(|old| !old.is_empty() && !is_ours(&String::from_utf8_lossy(&old))) {
        bail!("{} is there already and no key of an earlier run: name another file", identity.display());
    }
    let mut key = PrivateKey::random(&mut ssh_key::rand_core::OsRng, Algorithm::Ed25519)
        .context("making an ssh key")?;
    key.set_comment(KEY_COMMENT);
    let text = key.to_openssh(LineEnding::LF)?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(identity)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("writing {}", identity.display()))?;
    Ok(format!("{}\n", key.public_key().to_openssh()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_somebody_else_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let identity = folder.path().join("id");
        let first = make_key(&identity).unwrap();
        assert_ne!(make_key(&identity).unwrap(), first);
        fs::write(&identity, "a key of somebody else").unwrap();
        assert!(make_key(&identity).unwrap_err().to_string().contains("name another file"));
        assert_eq!(fs::read_to_string(&identity).unwrap(), "a key of somebody else");
    }
}
