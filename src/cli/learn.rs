//! The learner process of a port that was bound by hand.
//!
//! `netlaunch nwfilter binding-create` opens the capture and takes the learner lock, then starts
//! `netlaunch nwfilter binding-learn`, which inherits both descriptors and runs until the port or
//! its filter is removed.
//!
//! The process writes lines to standard output: `+` when it has taken over; the IPv4 address, or an
//! IPv6 address that is not link-local, when the rules with it are in force; `-` when it waits for
//! such an address; `!` and the reason when the rules could not be set. Its last line is `.` if the
//! port or its filter was removed, else `!` and the error. EOF without a last line means that the
//! process was killed.

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, PipeReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use caps::Capability;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use super::environment::Environment;
use super::nwfilter_error::NwfilterError;
use super::{Failure, learn_wait, print};
use crate::nwfilter::Binding;
use crate::nwfilter::port::{BindingError, Bindings, Learning, LearningEvent};
use crate::sys::file_pages;
use crate::sys::privileges::keep_only_for;
use crate::sys::process::{InheritedFds, detach};
use crate::types::{InterfaceName, error_text};

/// The number of times that a learner starts again after an error.
const RESUMES: usize = 3;
/// The pause before a learner starts again.
const PAUSE: Duration = Duration::from_secs(1);

/// A running learner process, with the pipe from its standard output.
pub(super) struct LearnerProcess {
    port: InterfaceName,
    output: BufReader<PipeReader>,
}

impl LearnerProcess {
    /// Starts a process that inherits the capture and the learner lock, and waits until it has
    /// taken over.
    fn start(
        environment: &Environment,
        port: &InterfaceName,
        inherited: [OwnedFd; 2],
    ) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        start(environment, port, &inherited, Some(writer.into()))?;
        let mut learner = LearnerProcess { port: port.clone(), output: BufReader::new(reader) };
        match learner.line()? {
            Some(_taken_over) => Ok(learner),
            None => Err(io::Error::other("the process ended at once")),
        }
    }

    /// Reads the next line; returns `None` at EOF.
    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        let length = self.output.read_line(&mut line)?;
        Ok((length > 0).then(|| line.trim().to_owned()))
    }

    /// Waits until the rules with the address are in force, and returns the address.
    ///
    /// # Errors
    /// The port was removed, its rules could not be set, or the process was killed.
    pub(super) fn address(mut self, bindings: &Bindings) -> Result<String, NwfilterError> {
        // A saved lease may be in force since the port was bound. The process reports only changes.
        if let Some(address) = self.in_force(bindings)? {
            return Ok(address.to_string());
        }
        while let Ok(Some(line)) = self.line() {
            match line.as_str() {
                "-" => {}
                "." => return Err(NwfilterError::Gone(self.port)),
                _ => match line.strip_prefix("! ") {
                    None => return Ok(line),
                    Some(why) => {
                        let why = why.to_owned();
                        return Err(NwfilterError::NotInForce { port: self.port, why });
                    }
                },
            }
        }
        Err(NwfilterError::Killed(self.port))
    }

    /// Returns the address of the port's rules, if they are in force.
    fn in_force(&self, bindings: &Bindings) -> Result<Option<IpAddr>, NwfilterError> {
        let status = match bindings.get(&self.port) {
            Err(BindingError::Unbound(_)) => return Ok(None),
            status => status?,
        };
        let is_set = status.failure().is_none();
        Ok(first_address(status.address, &status.addresses6).filter(|_| is_set))
    }
}

/// The change that a bind makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BindingChange {
    /// The port must have no filter.
    Create,
    /// The port must have a filter, which is replaced.
    Replace,
    /// The port may have a filter, which is replaced.
    CreateOrReplace,
}

/// Waits for the address of a port's guest.
pub(super) enum AddressWaiter {
    /// The bind has started this learner process.
    Started(LearnerProcess),
    /// An earlier learner of this port goes on.
    GoesOn(InterfaceName),
}

impl AddressWaiter {
    /// Waits until the rules with the address are in force, and returns the address.
    ///
    /// # Errors
    /// The port was removed, its rules could not be set, or the learner was killed.
    pub(super) async fn address(self, bindings: &Bindings) -> Result<String, NwfilterError> {
        match self {
            AddressWaiter::Started(learner) => learner.address(bindings),
            AddressWaiter::GoesOn(port) => {
                learn_wait::address(bindings, &port).await.map(|address| address.to_string())
            }
        }
    }
}

/// Puts a filter on a port and, if the address of its guest has to be learned, starts the learner
/// process. Returns the waiter for the address if `wait` is set.
pub(super) async fn bind(
    bindings: &Bindings,
    binding: &Binding,
    change: BindingChange,
    wait: bool,
    environment: &Environment,
) -> Result<Option<AddressWaiter>, NwfilterError> {
    let (created, replaced) = match change {
        BindingChange::Create => (bindings.create(binding).await, false),
        BindingChange::Replace => (bindings.replace(binding).await, true),
        BindingChange::CreateOrReplace => {
            // The port keeps the owner of its earlier binding.
            let ownerless = Binding { owner: None, ..binding.clone() };
            match bindings.replace(&ownerless).await {
                Err(BindingError::Unbound(_)) => (bindings.create(binding).await, false),
                replaced => (replaced, true),
            }
        }
    };
    restart_missing(bindings, environment);
    let created = created?;
    created.notes.iter().for_each(|note| tracing::warn!("{note}"));
    let port = &binding.port;
    let Some(learning) = created.learning else {
        let learns = wait && bindings.get(port)?.learns;
        return Ok(learns.then(|| AddressWaiter::GoesOn(port.clone())));
    };
    match LearnerProcess::start(environment, port, learning.hand_over()?) {
        Ok(learner) => Ok(wait.then(|| AddressWaiter::Started(learner))),
        // Without its filter the port would be open.
        Err(source) if replaced => Err(NwfilterError::NoLearner { port: port.clone(), source }),
        Err(source) => {
            if let Err(error) = bindings.delete(port).await {
                tracing::error!(
                    "cannot start the process that learns the address of the port {port}: {source}"
                );
                return Err(error.into());
            }
            Err(NwfilterError::Learner { port: port.clone(), source })
        }
    }
}

/// Starts a learner process for every port whose learner process was killed. Does nothing for a
/// user without write access to leases, since that user cannot see which learners run either.
pub(super) fn restart_missing(bindings: &Bindings, environment: &Environment) {
    let state = environment.state_dir().join("nwfilter");
    if faccessat(AT_FDCWD, &state, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_err() {
        return;
    }
    let ports = match bindings.unattended() {
        Ok(ports) => ports,
        Err(error) => return tracing::warn!("{}", error_text(&error)),
    };
    for port in ports {
        match start(environment, &port, &[], None) {
            Ok(()) => tracing::info!("a new process learns the address of the port {port}"),
            Err(error) => {
                tracing::warn!(
                    "cannot start the process that learns the address of the port {port}: {}",
                    error_text(&error)
                );
            }
        }
    }
}

/// Starts a learner process. `inherited` is the capture and the learner lock, or empty.
fn start(
    environment: &Environment,
    port: &InterfaceName,
    inherited: &[OwnedFd],
    output: Option<OwnedFd>,
) -> io::Result<()> {
    let mut args: Vec<OsString> =
        ["nwfilter", "binding-learn", port.as_str()].map(OsString::from).into();
    let fds: Vec<BorrowedFd<'_>> = inherited.iter().map(AsFd::as_fd).collect();
    if let [capture, lock] = inherited {
        args.push(format!("{},{}", capture.as_raw_fd(), lock.as_raw_fd()).into());
    }
    detach(&environment.own_program()?, &args, &fds, output)
}

/// Takes the descriptors that binding-create passes by number: the capture and the learner lock.
/// Returns `None` if another program started this process.
pub(super) fn take_handed(
    numbers: &[RawFd],
    inherited: &mut InheritedFds,
) -> Result<Option<[OwnedFd; 2]>, NwfilterError> {
    let failed = |source| NwfilterError::Inherited { source };
    match numbers {
        [] => Ok(None),
        [capture, lock] if capture != lock && *capture.min(lock) > 2 => {
            let mut take = |fd| inherited.take(fd).map_err(failed);
            Ok(Some([take(*capture)?, take(*lock)?]))
        }
        _ => Err(failed(io::Error::other("these are not two different descriptors above 2"))),
    }
}

/// Runs a learner process until the port or its filter is removed.
pub(super) async fn learn(
    bindings: &Bindings,
    port: &InterfaceName,
    inherited: Option<[OwnedFd; 2]>,
) -> Result<(), Failure> {
    // The process runs for a long time, and its current directory could not be unmounted.
    std::env::set_current_dir("/").map_err(Failure::system("leave the current directory"))?;
    let took_over = inherited.is_some();
    let next = match inherited {
        None if !bindings.get(port)?.learns => {
            return Err(NwfilterError::NotLearned(port.clone()).into());
        }
        None => bindings.resume(port).await?,
        Some(inherited) => bindings.adopt(port, inherited).await?,
    };
    let kept = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];
    let dirs = [bindings.state_dir()];
    if let Err(error) = keep_only_for(&kept, &dirs) {
        tracing::warn!(
            "cannot give up privileges: {}; the process that learns the address keeps them",
            error_text(&error)
        );
    }
    if took_over {
        print(b"+\n")?;
    } else if next.is_none() {
        return Ok(());
    }
    if let Err(error) = file_pages::release() {
        tracing::debug!("the pages of the program stay in memory: {}", error_text(&error));
    }
    let mut ended = report_events(bindings, next).await;
    // A single failed call, such as a lost message of the kernel, does not end the process.
    for _ in 0..RESUMES {
        let Err(error) = &ended else { break };
        tracing::warn!(
            "the process that learns the address of the port {port} starts again: {}",
            error_text(&error)
        );
        tokio::time::sleep(PAUSE).await;
        let Ok(next) = bindings.resume(port).await else { break };
        ended = report_events(bindings, next).await;
    }
    let last = ended.as_ref().map_or_else(failure_line, |()| ".\n".to_owned());
    print(last.as_bytes())?;
    ended
}

/// Prints each event of the learner until it ends.
async fn report_events(bindings: &Bindings, mut next: Option<Learning>) -> Result<(), Failure> {
    while let Some(learning) = next {
        let event;
        (event, next) = learning.next().await;
        match event {
            LearningEvent::RulesSet { address, addresses6 } => {
                match first_address(address, &addresses6) {
                    Some(address) => print(format!("{address}\n").as_bytes())?,
                    None => print(b"-\n")?,
                }
            }
            LearningEvent::RulesNotSet(error) => {
                tracing::error!("{}", error_text(&error));
                print(failure_line(&error).as_bytes())?;
            }
            LearningEvent::Ended(error) => {
                // If the port was removed, its rules are still in the kernel.
                bindings.collect().await?;
                if let Some(error) = error {
                    return Err(error.into());
                }
            }
        }
    }
    Ok(())
}

/// Returns the address that shows that the guest has network: the IPv4 address, or an IPv6 address
/// that reaches further than the link.
pub(super) fn first_address(address: Option<Ipv4Addr>, addresses6: &[Ipv6Addr]) -> Option<IpAddr> {
    let global = addresses6.iter().find(|address| !address.is_unicast_link_local());
    address.map(IpAddr::V4).or(global.copied().map(IpAddr::V6))
}

/// Returns the line for rules that could not be set.
fn failure_line(error: &impl Error) -> String {
    format!("! {}\n", error_text(&error).replace('\n', " "))
}
