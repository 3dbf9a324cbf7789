//! One binary, three roles: builder on a workstation, `/init` in the initramfs, agent on the node.

use std::process::ExitCode;

fn main() -> ExitCode {
    if keller::init::is_init() {
        keller::init::run();
    }
    keller::cli::main()
}
