//! Boots a guest through the library, as an appliance launcher would: plan, start, supervise.
//!
//! ```text
//! cargo run --example appliance -- 'QEMU COMMAND ...' [PORT]
//! cargo run --example appliance -- "$(echo qemu-system-x86_64 $(tests/guest/qemu-args DIR))" 2222:22
//! ```
//!
//! The first argument is split into words as a shell would; the second is a port to publish. The
//! exit status is QEMU's.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use netlaunch::launch::{LaunchRoot, Surroundings, start};
use netlaunch::plan::{Command, Request, plan, shell_line};
use netlaunch::probe::Prober;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let words = shell_words::split(&args.next().ok_or("name a QEMU command")?)?;
    let (program, rest) = words.split_first().ok_or("the QEMU command is empty")?;
    let request = Request {
        publish: args.map(|port| port.parse()).collect::<Result<_, _>>()?,
        command: Some(Command {
            program: program.into(),
            args: rest.iter().map(Into::into).collect(),
        }),
        ..Request::default()
    };

    // 1. What does this host have? Give a cache directory to ask each program only once.
    let is_root = nix::unistd::geteuid().is_root();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let prober = Prober {
        path: std::env::split_paths(&path).collect(),
        cache_dir: None,
        home: std::env::var_os("HOME").map(PathBuf::from),
        runtime_dir: None,
        root: is_root,
        system: "/".into(),
    };
    let facts = prober.facts(Some(program.as_ref()), None).await;

    // 2. Every command line, before anything is started. `launch` does this and the next step in
    //    one, and plans again without passt when passt does not start.
    let directory = tempfile::Builder::new().prefix("appliance-").tempdir()?;
    let surroundings = Surroundings {
        root: LaunchRoot { dir: directory.path().to_owned(), shared_parent: false, ours: false },
        env: std::env::vars_os().collect(),
        mask: None,
        qemu_fd: 3,
        is_root,
        bindings: None,
    };
    let plan = plan(&request, &facts, &surroundings.particulars())?;
    println!("backend: {}", plan.backend);
    if let Some(why) = &plan.fallback {
        println!("because {why}");
    }
    println!("arguments for QEMU: {}", shell_line(&plan.qemu.args));

    // 3. passt, then QEMU; both are gone when `wait` returns, or when `running` is dropped.
    let running = start(plan, &surroundings).await?;
    println!("QEMU runs as process {}", running.record().qemu.as_ref().map_or(0, |q| q.pid));
    let outcome = running.wait().await;
    for left in &outcome.left {
        eprintln!("{left}");
    }
    println!("exit status: {}", outcome.code());
    Ok(ExitCode::from(outcome.code()))
}
