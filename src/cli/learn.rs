//! Who learns the address of a port that was bound by hand: a process of ours, `netlaunch nwfilter
//! binding-learn`, that takes over from binding-create and ends with the port.
//!
//! On standard output it says `+` once it has taken over, and then each change, a line each: the
//! address; `-` when it waits for one again; `!` and why when the address could not be put in force.
//! Its last line is `.` when the port or its filter is gone, or `!` and the mistake it ends with. So
//! whoever reads knows that one who ends without was killed.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, BufRead, BufReader, PipeReader};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use caps::Capability;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use super::environment::Environment;
use super::nwfilter_error::NwfilterError;
use super::{Failure, print};
use crate::binding::{Bindings, Learning, Told};
use crate::nwfilter::Binding;
use crate::process::{detach, inherited, keep_only_for};
use crate::types::InterfaceName;

/// How often a learner goes on after an error, and how long it waits before that.
const RESUMES: usize = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// A process that learns, and what it tells.
pub(super) struct Learner {
    port: InterfaceName,
    told: BufReader<PipeReader>,
}

impl Learner {
    /// Starts one that takes over what was begun.
    fn start(
        environment: &Environment,
        port: &InterfaceName,
        handed: [OwnedFd; 2],
    ) -> io::Result<Self> {
        let (told, output) = io::pipe()?;
        start(environment, port, &handed, Some(output.into()))?;
        let mut learner = Learner { port: port.clone(), told: BufReader::new(told) };
        match learner.line()? {
            Some(_taken_over) => Ok(learner),
            None => Err(io::Error::other("it ended at once")),
        }
    }

    /// What it tells next; nothing when it has ended.
    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        let length = self.told.read_line(&mut line)?;
        Ok((length > 0).then(|| line.trim().to_owned()))
    }

    /// Waits for the address.
    pub(super) fn address(mut self, bindings: &Bindings) -> Result<String, NwfilterError> {
        // One that was kept may be in force since the port was bound, and nobody tells it.
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

    /// The address that the port's rules are made with.
    fn in_force(&self, bindings: &Bindings) -> Result<Option<Ipv4Addr>, NwfilterError> {
        let live = bindings.list()?;
        let status = live.iter().find(|status| status.port == self.port);
        Ok(status.filter(|status| status.failed.is_none()).and_then(|status| status.address))
    }
}

/// Puts a filter on a port and, where its guest's address is to be learnt, starts the process that
/// does so. Returns it where it has to be waited for.
pub(super) async fn bind(
    bindings: &Bindings,
    binding: &Binding,
    wait: bool,
    environment: &Environment,
) -> Result<Option<Learner>, NwfilterError> {
    let created = bindings.create(binding).await;
    attend(bindings, environment);
    let created = created?;
    created.notes.iter().for_each(|note| tracing::warn!("{note}"));
    let Some(learning) = created.learning else { return Ok(None) };
    let port = &binding.port;
    match Learner::start(environment, port, learning.hand_over()?) {
        Ok(learner) => Ok(Some(learner).filter(|_| wait)),
        Err(source) => {
            if let Err(error) = bindings.delete(port).await {
                tracing::error!("cannot start the process that learns the address: {source}");
                return Err(error.into());
            }
            Err(NwfilterError::Learner { port: port.clone(), source })
        }
    }
}

/// Starts a process for every port whose own was killed; nothing for whoever may not keep there what
/// is learnt, and cannot even tell who learns.
pub(super) fn attend(bindings: &Bindings, environment: &Environment) {
    let state = environment.state_dir().join("nwfilter");
    if faccessat(AT_FDCWD, &state, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_err() {
        return;
    }
    let ports = match bindings.unattended() {
        Ok(ports) => ports,
        Err(error) => return tracing::warn!("{error}"),
    };
    for port in ports {
        match start(environment, &port, &[], None) {
            Ok(()) => tracing::info!("the address of the port {port} is learnt again"),
            Err(error) => tracing::warn!("nobody learns the address of the port {port}: {error}"),
        }
    }
}

/// Starts the process, to go on with what is handed over.
fn start(
    environment: &Environment,
    port: &InterfaceName,
    handed: &[OwnedFd],
    output: Option<OwnedFd>,
) -> io::Result<()> {
    let mut args: Vec<OsString> =
        ["nwfilter", "binding-learn", port.as_str()].map(OsString::from).into();
    let fds: Vec<BorrowedFd<'_>> = handed.iter().map(AsFd::as_fd).collect();
    if let [capture, seat] = handed {
        args.push(format!("{},{}", capture.as_raw_fd(), seat.as_raw_fd()).into());
    }
    detach(&environment.own_program()?, &args, &fds, output)
}

/// The descriptors that binding-create hands over by their numbers; none where it is no part of
/// this.
pub(super) fn handed(numbers: &[RawFd]) -> Result<Option<[OwnedFd; 2]>, NwfilterError> {
    let failed = |source| NwfilterError::Handed { source };
    match numbers {
        [] => Ok(None),
        [capture, seat] if capture != seat && *capture.min(seat) > 2 => {
            let take = |fd| inherited::take(fd).map_err(failed);
            Ok(Some([take(*capture)?, take(*seat)?]))
        }
        _ => Err(failed(io::Error::other("they are not two descriptors of its own"))),
    }
}

/// Learns until there is nothing to learn any more.
pub(super) async fn learn(
    bindings: &Bindings,
    port: &InterfaceName,
    handed: Option<[OwnedFd; 2]>,
) -> Result<(), Failure> {
    // It outlives whoever stands in the directory.
    std::env::set_current_dir("/").map_err(Failure::system("leave the current directory"))?;
    let took_over = handed.is_some();
    let learning = match handed {
        None if !bindings.get(port).map_err(NwfilterError::from)?.learns => {
            return Err(NwfilterError::NotLearnt(port.clone()).into());
        }
        None => bindings.resume(port).await,
        Some(handed) => bindings.adopt(port, handed).await,
    };
    let next = learning.map_err(NwfilterError::from)?;
    let kept = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];
    let dirs = [bindings.state_dir()];
    if let Err(error) = keep_only_for(&kept, &dirs) {
        tracing::warn!("the process keeps its privileges: {error}");
    }
    if took_over {
        print(b"+\n")?;
    } else if next.is_none() {
        return Ok(());
    }
    let mut ended = go_on(bindings, next).await;
    // One failed call, such as a lost message of the kernel, does not end the learning.
    for _ in 0..RESUMES {
        let Err(error) = &ended else { break };
        tracing::warn!("the address of the port {port} is learnt again: {error}");
        tokio::time::sleep(PAUSE).await;
        let Ok(next) = bindings.resume(port).await else { break };
        ended = go_on(bindings, next).await;
    }
    let last = ended.as_ref().map_or_else(told_failure, |()| ".\n".to_owned());
    print(last.as_bytes())?;
    ended
}

/// Says what is learnt until nothing is any more.
async fn go_on(bindings: &Bindings, mut next: Option<Learning>) -> Result<(), Failure> {
    while let Some(learning) = next {
        let told;
        (told, next) = learning.next().await;
        match told {
            Told::InForce(Some(address)) => print(format!("{address}\n").as_bytes())?,
            Told::InForce(None) => print(b"-\n")?,
            Told::Failed(error) => {
                tracing::error!("{error}");
                print(told_failure(&error).as_bytes())?;
            }
            Told::Ended(error) => {
                // A port that is gone has left its rules.
                bindings.collect().await.map_err(NwfilterError::from)?;
                if let Some(error) = error {
                    return Err(NwfilterError::from(error).into());
                }
            }
        }
    }
    Ok(())
}

/// The line that says why an address is not in force.
fn told_failure(error: &impl Display) -> String {
    format!("! {}\n", error.to_string().replace('\n', " "))
}
