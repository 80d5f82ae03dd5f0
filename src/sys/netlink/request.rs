//! Sends netlink requests to the kernel, and decides whether they were carried out.
//!
//! A request is complete when the kernel confirms it: a change when it is acknowledged
//! (`NLMSG_ERROR` with code 0), a listing when its last message (`NLMSG_DONE`) arrived and no
//! change interrupted it (`NLM_F_DUMP_INTR`). rtnetlink's own requests treat the end of the answers
//! as success, which also occurs if the message was never sent (ENOBUFS) or the socket failed.
//!
//! A request whose answer was lost may have been carried out. It is sent once more on a new socket,
//! since all requests can be repeated: an error that means "done already" then counts as success
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

/// The time limit for an answer. The kernel handles a request while it is being sent, so only a
/// lost answer takes longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The number of times that a request is sent if its answer is lost.
const ATTEMPTS: usize = 2;
/// The number of attempts at a listing that changes by other programs interrupt.
const LISTINGS: usize = 10;

/// The kernel's answer to a repeated request that was carried out the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// The repeated request succeeds again.
    Same,
    /// The repeated request fails with one of these errors.
    Refused(&'static [Errno]),
    /// An error does not say which process made the object, so the caller must check.
    Look,
}

/// The reason why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The kernel refused the request.
    Refused(io::Error),
    /// The answer was lost.
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

/// The message that ends the answers to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The acknowledgement of one change, or the end of one object's description.
    Acknowledgement,
    /// The end of a listing.
    Listing,
}

/// A netlink connection that is opened again after a failure.
#[derive(Debug, Clone)]
pub(super) struct Requests(Arc<Mutex<Handle>>);

impl Requests {
    pub(super) fn open() -> Result<Self, LinkError> {
        Ok(Requests(Arc::new(Mutex::new(connect().map_err(LinkError::Connect)?))))
    }

    /// Changes or removes an existing object.
    ///
    /// # Errors
    /// Returns [`Failure`] if the kernel refuses or the answer is lost.
    pub(super) async fn change(
        &self,
        message: RouteNetlinkMessage,
        again: Again,
    ) -> Result<(), Failure> {
        self.repeat(message, NLM_F_REQUEST | NLM_F_ACK, Answer::Acknowledgement, again)
            .await
            .map(drop)
    }

    /// Makes a new object.
    ///
    /// # Errors
    /// Returns [`Failure`] if the kernel refuses or the answer is lost.
    pub(super) async fn create(
        &self,
        message: RouteNetlinkMessage,
        again: Again,
    ) -> Result<(), Failure> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.repeat(message, flags, Answer::Acknowledgement, again).await.map(drop)
    }

    /// Reads one object.
    ///
    /// # Errors
    /// Returns [`Failure`] if the kernel refuses or the answer is lost.
    pub(super) async fn get(
        &self,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        self.repeat(message, NLM_F_REQUEST | NLM_F_ACK, Answer::Acknowledgement, Again::Same).await
    }

    /// Lists all objects of a kind.
    ///
    /// # Errors
    /// Returns [`Failure`] if the kernel refuses or the answer is lost.
    pub(super) async fn list(
        &self,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        self.repeat(message, NLM_F_REQUEST | NLM_F_DUMP, Answer::Listing, Again::Same).await
    }

    /// Sends a request, and sends it again on a new connection if the answer was lost.
    async fn repeat(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        expected: Answer,
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
            match self.send(&message, flags, expected).await {
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
        expected: Answer,
    ) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        for _ in 0..LISTINGS {
            let mut handle = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let answer =
                tokio::time::timeout(ANSWER_LIMIT, ask(&mut handle, message, flags, expected));
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

/// Sends one message and reads the answers up to the last; returns `None` if a listing was
/// interrupted.
async fn ask(
    handle: &mut Handle,
    message: &RouteNetlinkMessage,
    flags: u16,
    expected: Answer,
) -> Result<Option<Vec<RouteNetlinkMessage>>, Failure> {
    let closed = Failure::Lost("the netlink socket failed");
    let mut request = NetlinkMessage::from(message.clone());
    request.header.flags = flags;
    let Ok(mut answers) = handle.request(request) else { return Err(closed) };
    let (mut found, mut interrupted) = (Vec::new(), false);
    while let Some(answer) = answers.next().await {
        interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
        match (answer.payload, expected) {
            (NetlinkPayload::InnerMessage(message), _) => found.push(message),
            (NetlinkPayload::Error(error), _) if error.code.is_some() => {
                return Err(Failure::Refused(error.to_io()));
            }
            (NetlinkPayload::Done(done), Answer::Listing) if done.code < 0 => {
                return Err(Failure::Refused(io::Error::from_raw_os_error(-done.code)));
            }
            (NetlinkPayload::Error(_), Answer::Acknowledgement)
            | (NetlinkPayload::Done(_), Answer::Listing) => {
                return Ok((!interrupted).then_some(found));
            }
            _ => return Err(Failure::Lost("an answer of the kernel was lost")),
        }
    }
    Err(closed)
}
