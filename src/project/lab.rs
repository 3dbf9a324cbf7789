//! Several machines on an Ethernet of their own: what they are made of, and their start.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Inputs;
use super::boot::{disk_format, key, node, node_needs, sector_size};
use super::qemu::{Qemu, qemu};
use crate::base::progress::Progress;
use crate::base::scratch::Scratch;
use crate::base::{Size, atomic, input, limits};
use crate::lab::{self, Identity, Layer, Place, Plan, Running, Setup, Spec};
use crate::output;
use crate::qemu::{Accelerator, Machine, Nic};

/// A lab that is to be started.
#[derive(Clone, Debug)]
pub struct Lab {
    /// Where its disks, consoles and its socket lie; one lab at a time.
    pub directory: PathBuf,
    /// Its machines.
    pub plan: Plan,
    /// Whether disks and the firmware's variables outlast it.
    pub keep: bool,
    /// Whether disks that an earlier lab kept are thrown away.
    pub fresh: bool,
    /// Whether machines are emulated even where KVM works.
    pub no_kvm: bool,
    /// Public ssh keys (file) for user core, besides the one that is made for this run.
    pub ssh_key: Option<PathBuf>,
    /// Where QEMU comes from.
    pub inputs: Inputs,
}

/// A lab with all it is made of, which was not started yet.
pub struct Prepared {
    setup: Setup,
    qemu: Qemu,
    scratch: Scratch,
    is_emulated: bool,
}

/// A lab that runs, with what must last until it has ended.
pub struct Up {
    /// The machines.
    pub running: Running,
    _qemu: Qemu,
    _scratch: Scratch,
}

/// Reads the lab file at `path`; `image` is that of machines that name none.
///
/// # Errors
/// All that is wrong with it.
pub fn plan(path: &Path, image: Option<&Path>) -> Result<Plan> {
    // One byte more than is read, so that the room itself says what is too large.
    let bytes = input::read(path, limits::TEXT + 1).with_context(|| format!("reading {}", path.display()))?;
    Ok(lab::file::read(path, &bytes, image)?)
}

impl Lab {
    /// Finds QEMU, takes the directory, makes disks, keys and documents; starts nothing.
    ///
    /// # Errors
    /// A directory with another lab, what is no image, and what keeps QEMU from being found.
    pub fn prepare(&self, progress: &dyn Progress) -> Result<Prepared> {
        // What is wrong with the images is told before anything is fetched.
        let images = self.plan.machines.iter().map(image).collect::<Result<Vec<_>>>()?;
        let place = Place::take(&self.directory)?;
        let qemu = qemu(&self.inputs, progress)?;
        let scratch = Scratch::new("keller-")?;
        let identity = place.directory().join("lab.identity");
        let mut keys = key::make(&identity)?;
        if let Some(file) = &self.ssh_key {
            keys.push_str(&key::public(file)?);
        }
        let accelerator = if self.no_kvm { Accelerator::Tcg } else { Accelerator::probe() };
        let common = Common { lab: self, place: &place, scratch: scratch.path(), keys: &keys, accelerator };
        let mut specs = Vec::new();
        for (machine, image) in self.plan.machines.iter().zip(images) {
            let blank = qemu.program.variables();
            specs.push(
                common.spec(machine, image, blank).with_context(|| format!("machine {}", machine.name))?,
            );
        }
        // Only once all of them fit: whoever is refused finds the disks as they were.
        for spec in &specs {
            if self.fresh || !spec.layer.is_kept() {
                spec.layer.make(self.keep).with_context(|| format!("making the disk of {}", spec.name))?;
            }
        }
        let setup = Setup { place, specs, program: qemu.program.clone(), keep: self.keep, identity };
        Ok(Prepared { setup, qemu, scratch, is_emulated: accelerator == Accelerator::Tcg })
    }
}

impl Prepared {
    /// Whether machines are emulated.
    pub fn is_emulated(&self) -> bool {
        self.is_emulated
    }

    /// Starts all machines.
    ///
    /// # Errors
    /// QEMU's; no machine is left then.
    pub fn start(self) -> Result<Up> {
        let Self { setup, qemu, scratch, .. } = self;
        Ok(Up { running: Running::start(setup)?, _qemu: qemu, _scratch: scratch })
    }
}

/// An image as a machine's disk begins.
struct Image {
    path: PathBuf,
    format: crate::qemu::machine::DiskFormat,
    sector_size: u32,
    /// Of the machine's disk.
    size: Size,
}

fn image(machine: &lab::Machine) -> Result<Image> {
    let shown = machine.image.display();
    let context = || format!("machine {}: reading {shown}", machine.name);
    let format = disk_format(&machine.image, false).with_context(|| format!("machine {}", machine.name))?;
    let file = input::open_disk(&machine.image).with_context(context)?;
    let has = Size(output::virtual_size(&file).with_context(context)?);
    let least = node_needs(&machine.image, format)?.map_or(has, |(_, needs)| needs.max(has));
    let size = machine.disk.unwrap_or(least);
    if size < least {
        bail!(
            "machine {}: a disk of {size} is too small: a node of {shown} needs {}",
            machine.name,
            least.human()
        );
    }
    let sector_size = sector_size(&machine.image, format);
    if let Some(why) = machine.bus.refuses_sectors(sector_size) {
        bail!("machine {}: {why}, and {shown} is made for {sector_size}: name another bus", machine.name);
    }
    Ok(Image { path: fs::canonicalize(&machine.image).with_context(context)?, format, sector_size, size })
}

/// What all machines of a lab have in common.
struct Common<'a> {
    lab: &'a Lab,
    place: &'a Place,
    scratch: &'a Path,
    keys: &'a str,
    accelerator: Accelerator,
}

impl Common<'_> {
    fn spec(&self, machine: &lab::Machine, image: Image, blank: &Path) -> Result<Spec> {
        let directory = self.place.of_machine(&machine.name)?;
        let layer = Layer {
            directory: directory.clone(),
            image: image.path,
            format: image.format,
            size: image.size.bytes(),
            blank: blank.to_owned(),
        };
        self.judge(&machine.name, &layer)?;
        let scratch = self.scratch.join(&machine.name);
        fs::create_dir(&scratch).context("making a scratch directory")?;
        let document = match (&machine.identity, machine.document()) {
            (Identity::Document(file), _) => file.clone(),
            (_, text) => {
                let file = directory.join("node.yaml");
                atomic::write(&file, text.unwrap_or_default())
                    .with_context(|| format!("writing {}", file.display()))?;
                file
            }
        };
        let address = match &machine.identity {
            Identity::Address(address, prefix) => Some(format!("{address}/{prefix}")),
            Identity::Document(_) => None,
        };
        let credential = ("ssh.authorized_keys.core".to_owned(), self.keys.as_bytes().to_vec());
        let qemu = Machine {
            disk: layer.disk(),
            format: crate::qemu::machine::DiskFormat::Qcow2,
            persist: true,
            bus: machine.bus,
            nics: vec![Nic::DEFAULT],
            cable: None,
            serial: Some(machine.name.clone()),
            sector_size: image.sector_size,
            memory_mib: u32::try_from(machine.memory.bytes() >> 20).context("that much memory cannot be")?,
            cpus: machine.cpus,
            accelerator: self.accelerator,
            credentials: vec![credential],
            secrets: vec![node::hand_over(&document, &scratch)?],
            variables: layer.variables(),
            monitor: scratch.join("monitor"),
            clock: machine.clock.map(|shown| shown.strftime("%Y-%m-%dT%H:%M:%S").to_string()),
            no_reboot: false,
            extra: Vec::new(),
        };
        Ok(Spec {
            name: machine.name.clone(),
            machine: qemu,
            layer,
            mac: machine.mac(),
            address,
            forwards: machine.forwards.clone(),
            console: directory.join("console.log"),
        })
    }

    /// Whether the lab may go on with the disk that is there, or make one in its place.
    fn judge(&self, name: &str, layer: &Layer) -> Result<()> {
        if !layer.is_kept() || self.lab.fresh {
            return Ok(());
        }
        let disk = layer.disk();
        let shown = disk.display();
        if !self.lab.keep {
            bail!("{shown} is what an earlier lab kept: --keep goes on with it, --fresh throws it away");
        }
        if !layer.fits().with_context(|| format!("reading what is known of {shown}"))? {
            bail!(
                "{shown} is what an earlier lab kept, over another image than {}, or of another size: --fresh makes {name} \
                 a new disk; the old one is good only with the image that it was made for",
                layer.image.display()
            );
        }
        Ok(())
    }
}
