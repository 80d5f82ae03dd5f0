//! Waits until a started passt serves.
//!
//! Both known kinds of passt write their pid file last, so netlaunch looks for this file every 0.25
//! ms. That costs one stat(2), and a start with passt 1 ms less than with pauses of 1 ms, which
//! tokio makes 2 ms. When the file is there, and every 10 ms before, netlaunch asks the kernel
//! whether passt serves ([`super::serving`]), which costs the more the more sockets the host has.
//!
//! inotify(7) would tell of the file without any looks, but the kernel can need 10 ms to close the
//! queue.

use std::time::{Duration, Instant};

use super::passt::{PasstError, PasstReadiness, PasstSpawn, ended};
use super::passt_failure::passt_failure;
use super::ports;
use super::serving::{missing_port, names_pid_file, pid_file_written, serves};
use crate::launcher::plan::PasstPlan;
use crate::sys::fine_timer::FineTimer;
use crate::sys::process::Child;
use crate::types::{PortRange, Publish};

/// How long passt may take until it serves; measured: about 30 ms on an idle machine.
const START_LIMIT: Duration = Duration::from_secs(10);
/// The additional time that passt has for each published port; measured: 20,000 take 0.4 s.
const PORT_LIMIT: Duration = Duration::from_millis(1);
/// How long after its pid file passt may begin to listen on its ports; both known kinds of passt
/// write the pid file last.
const PORTS_LATE: Duration = Duration::from_secs(2);
/// How long after its socket passt may write its pid file; measured: over 1 s if thirty start at
/// once on two processors.
const PID_LIMIT: Duration = Duration::from_secs(10);
/// The pause after which netlaunch asks the kernel again: the first one until [`SOON`].
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(10)];
/// How long passt usually takes at most until it serves.
const SOON: Duration = Duration::from_millis(100);
/// How often netlaunch looks for the pid file.
const LOOK: Duration = Duration::from_micros(250);

/// Waits until passt serves: it has its socket, its ports and its pid file.
pub(super) async fn ready(passt_spawn: &PasstSpawn, child: &mut Child) -> Result<(), PasstError> {
    let plan = &passt_spawn.plan;
    let ports: u32 = plan.publish.iter().map(|p| p.host.ports().count() as u32).sum();
    let limit = START_LIMIT + PORT_LIMIT * ports;
    let begun = Instant::now();
    // Without a timer, such as at the limit of open files, the pauses are tokio's.
    let timer = FineTimer::every(LOOK).ok();
    // The times at which passt had its socket, and its pid file.
    let (mut served, mut set_up) = (None, None);
    loop {
        if served.is_none() && serves(plan, child.pid()) {
            served = Some(Instant::now());
        }
        let [soon, later] = PAUSES;
        let mut pause = if begun.elapsed() < SOON { soon } else { later };
        // netlaunch replaces the pid file afterwards, and passt could not open netlaunch's.
        if let Some(since) = served
            && (!names_pid_file(plan) || pid_file_written(plan) || since.elapsed() > PID_LIMIT)
        {
            let looked = Instant::now();
            let Some((publish, port)) = missing_port(plan) else { return Ok(()) };
            let since = set_up.get_or_insert_with(Instant::now);
            // netlaunch needs longer to read a table of many thousand sockets than passt to go on.
            pause += looked.elapsed();
            if since.elapsed() > PORTS_LATE && (names_pid_file(plan) || begun.elapsed() > limit) {
                let (publish, words) = (publish.clone(), passt_failure(child));
                // passt itself listens on the other ports.
                let one = PortRange::new(port, port).map(|host| Publish {
                    host,
                    guest: host,
                    ..publish.clone()
                });
                let cause = ports::check(one.as_slice()).err().map(Box::new);
                return Err(PasstError::PortNotListening { publish, port, words, cause });
            }
        }
        tokio::select! {
            biased;
            status = child.wait() => {
                // The peer of its socket came and has left before this process looked.
                let has_served = plan.socket.is_none() && pid_file_written(plan);
                let is_done = status.success() && has_served;
                return if is_done { Ok(()) } else { Err(ended(passt_spawn, status, child)) };
            }
            () = wait(plan, timer.as_ref(), pause) => {}
        }
        if served.is_none() && begun.elapsed() > limit {
            let (awaited, words) = (PasstReadiness::of(plan), passt_failure(child));
            return Err(PasstError::StartTimeout { awaited, limit, words });
        }
    }
}

/// Waits until passt has written its pid file, at most the longer of [`PAUSES`]. If there is no pid
/// file to wait for, waits for `pause`.
async fn wait(plan: &PasstPlan, timer: Option<&FineTimer>, pause: Duration) {
    let Some(timer) = timer.filter(|_| names_pid_file(plan) && !pid_file_written(plan)) else {
        return tokio::time::sleep(pause).await;
    };
    let begun = Instant::now();
    while begun.elapsed() < PAUSES[1] && !pid_file_written(plan) {
        if timer.tick().await.is_err() {
            return tokio::time::sleep(pause).await;
        }
    }
}
