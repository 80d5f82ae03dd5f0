//! The one way in which requests go to the kernel, and what counts as done.
//!
//! A request is done when the kernel says so: a change when it is acknowledged (`NLMSG_ERROR` with
//! code 0), a listing when its last message (`NLMSG_DONE`) came and nothing changed meanwhile
//! (`NLM_F_DUMP_INTR`). rtnetlink's own requests take the end of the answers for success, which a
//! message that was never sent (ENOBUFS), or a socket that failed, has as well.
//!
//! A request whose answer was lost may have been carried out. It is sent once more on a new socket,
//! since all of them can be repeated: the error that says "done already" is success then
//! ([`Again`]).

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use nix::errno::Errno;
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST,
    NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;

use super::LinkError;

/// How long the kernel may take. It handles a request while it is being sent, so only a lost answer
/// takes longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a request is sent whose answer was lost.
const ATTEMPTS: usize = 2;
/// How often a listing is begun that changes of others interrupt.
const LISTINGS: usize = 10;

/// The error by which the kernel says that a repeated request was carried out the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Repeating it does the same.
    Same,
    /// Repeating it is refused with one of these.
    Refused(&'static [Errno]),
    /// A refusal does not tell whose work is there: the caller looks.
    Look,
}

/// Why there is no answer, or no good one.
#[derive(Debug)]
pub(super) enum Failure {
    /// The kernel refused.
    Refused(io::Error),
    /// No answer came.
    Lost(&'static str),
}

impl Failure {
    fn errno(&self) -> Option<Errno> {
        match self {
            Failure::Refused(source) => source.raw_os_error().map(Errno::from_raw),
            Failure::Lost(_) => None,
        }
    }
}

/// The request in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    One,
    All,
}

/// A connection that is made anew where it failed.
#[derive(Debug, Clone)]
pub(super) struct Requests(Arc<Mutex<Handle>>);

impl Requests {
    pub(super) fn open() -> Result<Self, LinkError> {
        Ok(Requests(Arc::new(Mutex::new(connect().map_err(LinkError::Connect)?))))
    }

    /// Changes something that exists, or removes it.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn change(
        &self,
        message: RouteNetlinkMessage,
        again: Again,
    ) -> Result<(), Failure> {
        self.repeat(message, NLM_F_REQUEST | NLM_F_ACK, Kind::One, again).await.map(drop)
    }

    /// Makes something that does not exist.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn create(
        &self,
        message: RouteNetlinkMessage,
        again: Again,
    ) -> Result<(), Failure> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.repeat(message, flags, Kind::One, again).await.map(drop)
    }

    /// Reads one thing.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn get(
        &self,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        self.repeat(message, NLM_F_REQUEST | NLM_F_ACK, Kind::One, Again::Same).await
    }

    /// Lists everything of a kind.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn list(
        &self,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        self.repeat(message, NLM_F_REQUEST | NLM_F_DUMP, Kind::All, Again::Same).await
    }

    /// Sends a request, and again on a new connection where the answer was lost.
    async fn repeat(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        kind: Kind,
        again: Again,
    ) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        let mut lost = "";
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                match connect() {
                    Ok(handle) => *self.0.lock().unwrap_or_else(PoisonError::into_inner) = handle,
                    Err(error) => return Err(Failure::Refused(error)),
                }
            }
            match self.send(&message, flags, kind).await {
                Err(Failure::Lost(why)) if again == Again::Look => return Err(Failure::Lost(why)),
                Err(Failure::Lost(why)) => lost = why,
                Err(failure) if attempt > 0 => {
                    return match (again, failure.errno()) {
                        (Again::Refused(done), Some(errno)) if done.contains(&errno) => {
                            Ok(Vec::new())
                        }
                        _ => Err(failure),
                    };
                }
                done => return done,
            }
        }
        Err(Failure::Lost(lost))
    }

    async fn send(
        &self,
        message: &RouteNetlinkMessage,
        flags: u16,
        kind: Kind,
    ) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        for _ in 0..LISTINGS {
            let mut handle = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let answer = tokio::time::timeout(PATIENCE, ask(&mut handle, message, flags, kind));
            match answer.await {
                Err(_) => return Err(Failure::Lost("the kernel gave no answer")),
                Ok(Ok(None)) => {}
                Ok(Ok(Some(answer))) => return Ok(answer),
                Ok(Err(failure)) => return Err(failure),
            }
        }
        Err(Failure::Lost("the interfaces changed each time they were listed"))
    }
}

/// Opens a connection, which a task of the runtime serves until its last handle is dropped.
fn connect() -> io::Result<Handle> {
    let (mut connection, handle, _) = rtnetlink::new_connection()?;
    connection.set_forward_ack(true);
    connection.set_forward_done(true);
    tokio::spawn(connection);
    Ok(handle)
}

/// Sends one message and reads the answers up to the last; `None` is a listing that was
/// interrupted.
async fn ask(
    handle: &mut Handle,
    message: &RouteNetlinkMessage,
    flags: u16,
    kind: Kind,
) -> Result<Option<Vec<RouteNetlinkMessage>>, Failure> {
    let closed = Failure::Lost("the netlink socket failed");
    let mut request = NetlinkMessage::from(message.clone());
    request.header.flags = flags;
    let Ok(mut answers) = handle.request(request) else { return Err(closed) };
    let (mut found, mut interrupted) = (Vec::new(), false);
    while let Some(answer) = answers.next().await {
        interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
        match (answer.payload, kind) {
            (NetlinkPayload::InnerMessage(message), _) => found.push(message),
            (NetlinkPayload::Error(error), _) if error.code.is_some() => {
                return Err(Failure::Refused(error.to_io()));
            }
            (NetlinkPayload::Done(done), Kind::All) if done.code < 0 => {
                return Err(Failure::Refused(io::Error::from_raw_os_error(-done.code)));
            }
            (NetlinkPayload::Error(_), Kind::One) | (NetlinkPayload::Done(_), Kind::All) => {
                return Ok((!interrupted).then_some(found));
            }
            _ => return Err(Failure::Lost("an answer of the kernel was lost")),
        }
    }
    Err(closed)
}
