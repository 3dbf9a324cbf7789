//! A debugger on QEMU's stub: stops all processors and changes what they run.
//!
//! Source: GDB manual, "GDB Remote Serial Protocol"; the order of registers is that of its i386:x86-64.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Where RIP stands among the registers, in bytes: behind sixteen others.
const RIP: usize = 16 * 8;
/// The kernel has the upper half of the addresses.
const KERNEL: u64 = 1 << 63;
/// RFLAGS, behind RIP, and its bit that lets interrupts in.
const FLAGS: usize = RIP + 8;
const INTERRUPTS: u32 = 1 << 9;
/// The instruction with which an idle processor waits.
const HLT: &str = "f4";
/// Rounds in which the processors may be found in the kernel; each waits for 20 ms.
const ROUNDS: u32 = 1500;

/// What is known of a stopped processor.
struct Processor {
    /// Its number, from 1 on.
    thread: usize,
    rip: u64,
    flags: u32,
    /// Whether it waits for something to do.
    idle: bool,
}

/// A connection; the machine stands still from its begin on.
pub struct Gdb(UnixStream);

impl Gdb {
    /// The arguments of `keller boot` that have QEMU listen at `socket`.
    pub fn arguments(socket: &Path) -> [String; 2] {
        ["--qemu-arg=-gdb".to_owned(), format!("--qemu-arg=unix:{},server=on,wait=off", socket.display())]
    }

    /// Stops the machine.
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("QEMU listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(stream)
    }

    /// Has every processor hang in the kernel, deaf to interrupts, and lets the machine go. They halt: one that spins is as
    /// dead to its watchdog, and takes 90 s of a processor from other machines until that resets it.
    pub fn hang_all(self) {
        // cli; hlt; jmp to the hlt
        self.hang(usize::MAX, ["faf4ebfd"; 2], |processor| processor.rip >= KERNEL);
    }

    /// Has one processor hang in the kernel, which still hears interrupts, and lets the machine go. It is one that
    /// has been busy there for a while: the kernel does not look for a lockup where the tick has stopped, because
    /// nothing but an interrupt has run.
    pub fn hang_one(self) {
        const BUSY: u32 = 5;
        let mut rounds = HashMap::new();
        // sti; jmp . where it is no interrupt that hangs.
        self.hang(1, ["fbebfe"; 2], |processor| {
            let busy = processor.rip >= KERNEL && processor.flags & INTERRUPTS != 0 && !processor.idle;
            let in_a_row = rounds.entry(processor.thread).or_insert(0);
            *in_a_row = if busy { *in_a_row + 1 } else { 0 };
            *in_a_row >= BUSY
        });
    }

    /// As many as `processors` or all there are hang, once so many fit. The first gets the first of `codes`, the
    /// others the second.
    fn hang(mut self, processors: usize, codes: [&str; 2], mut fits: impl FnMut(&Processor) -> bool) {
        for _ in 0..ROUNDS {
            let mut found = self.processors();
            assert!(!found.is_empty(), "no processors");
            let wanted = processors.min(found.len());
            found.retain(&mut fits);
            found.truncate(wanted);
            // Two pieces of code must not overlap.
            let apart = |rip: u64| rip == found[0].rip || rip.abs_diff(found[0].rip) > 8;
            if found.len() == wanted && found.iter().all(|processor| apart(processor.rip)) {
                // From the last on: where all are at one address, they get the first code.
                for (index, processor) in found.into_iter().enumerate().rev() {
                    let code = codes[index.min(1)];
                    assert_eq!(self.ask(&format!("Hg{:x}", processor.thread)), "OK");
                    let write = format!("M{:x},{:x}:{code}", processor.rip, code.len() / 2);
                    assert_eq!(self.ask(&write), "OK");
                    eprintln!("processor {} hangs at {:x}", processor.thread, processor.rip);
                }
                assert_eq!(self.ask("D"), "OK");
                return;
            }
            self.proceed();
        }
        panic!("the processors were never in the kernel as wanted");
    }

    /// Lets the machine run for a moment.
    fn proceed(&mut self) {
        self.send("c");
        std::thread::sleep(Duration::from_millis(20));
        self.0.write_all(&[3]).unwrap();
        let stopped = self.receive();
        assert!(stopped.starts_with('T'), "{stopped}");
    }

    /// All of them.
    fn processors(&mut self) -> Vec<Processor> {
        let mut all = Vec::new();
        for thread in 1.. {
            if self.ask(&format!("Hg{thread:x}")) != "OK" {
                break;
            }
            let registers = self.ask("g");
            // Little endian.
            let rip = u64::from_str_radix(&registers[2 * RIP..][..16], 16).unwrap().swap_bytes();
            let flags = u32::from_str_radix(&registers[2 * FLAGS..][..8], 16).unwrap().swap_bytes();
            let around = self.ask(&format!("m{:x},2", rip.wrapping_sub(1)));
            let idle = around.starts_with(HLT) || around.ends_with(HLT);
            all.push(Processor { thread, rip, flags, idle });
        }
        all
    }

    /// The answer to `packet`. QEMU 7 says unasked that the machine has stopped, when a debugger connects; none of
    /// what is asked here has such an answer.
    fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        loop {
            let answer = self.receive();
            if !answer.starts_with('T') {
                return answer;
            }
        }
    }

    fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.0, "${packet}#{sum:02x}").unwrap();
    }

    /// The next packet; says that it has come, and passes over what says so of ours.
    fn receive(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut text = String::new();
        loop {
            match self.byte() {
                b'#' => break,
                byte => text.push(byte.into()),
            }
        }
        let _sum = [self.byte(), self.byte()];
        self.0.write_all(b"+").unwrap();
        text
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).expect("QEMU answers");
        byte[0]
    }
}

/// Whatever QEMU is on PATH, or else the one that keller unpacks: what the tests of hangs need of it.
#[test]
#[ignore = "long: ci/test --long"]
fn the_debugger_finds_every_processor_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let (image, socket) = (folder.path().join("blank.raw"), folder.path().join("gdb"));
    std::fs::write(&image, [0; 1 << 20]).unwrap();
    let arguments = Gdb::arguments(&socket);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--cpus", "2"]).collect();
    let node = super::Node::start(&image, &arguments, 8080);
    let deadline = std::time::Instant::now() + super::BOOT;
    while !socket.exists() {
        assert!(std::time::Instant::now() < deadline, "QEMU does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    for _ in 0..3 {
        let mut gdb = Gdb::connect(&socket);
        for _ in 0..3 {
            let found: Vec<usize> = gdb.processors().iter().map(|processor| processor.thread).collect();
            assert_eq!(found, [1, 2]);
            gdb.proceed();
        }
        assert_eq!(gdb.ask("D"), "OK");
    }
    drop(node);
}
