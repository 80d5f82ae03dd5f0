//! Boots a guest from a program without a tokio runtime; the exit status is QEMU's.
//!
//! ```text
//! cargo run --example appliance_blocking -- PORTS QEMU [ARGS]...
//! ```

use std::{error::Error, process::ExitCode};

use netlaunch::launcher::Launcher;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let ports = words.next().ok_or("name the ports to publish, such as 2222:22")?;
    let qemu = words.next().ok_or("name QEMU and its arguments")?;
    let launcher = Launcher::builder().qemu(qemu, words).publish(&*ports).from_env();
    let launch = launcher.launch_blocking()?;
    println!("QEMU is process {:?}, on {}", launch.info().qemu_pid, launch.info().backend);
    Ok(launch.wait().code().into())
}
