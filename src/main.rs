//! One binary, three roles: builder on a workstation, `/init` in the initramfs, agent on the node.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        keller::init::run();
    }
    keller::cli::main()
}
