//! Boots a guest as the launcher of an appliance does; the exit status is QEMU's.
//!
//! ```text
//! cargo run --example appliance -- PORTS QEMU [ARGS]...
//! cargo run --example appliance -- 2222:22 qemu-system-x86_64 $(tests/guest/qemu-args DIR)
//! ```

use std::{error::Error, process::ExitCode};

use netlaunch::launcher::{LaunchEvent, Launcher};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let ports = words.next().ok_or("name the ports to publish, such as 2222:22")?;
    let qemu = words.next().ok_or("name QEMU and its arguments")?;
    let launcher = Launcher::builder().qemu(qemu, words).publish(&*ports).from_env();
    let mut launch = launcher.launch().await?;
    println!("QEMU is process {:?}, on {}", launch.info().qemu_pid, launch.info().backend);
    while let Some(event) = launch.next_event().await {
        println!("{event:?}");
        if let LaunchEvent::Ended(outcome) = event {
            return Ok(outcome.code().into());
        }
    }
    Err("the launch ended without an outcome".into())
}
