//! The work in flight for one NIC of a supervised launch, and the events that the supervisor gets
//! from it.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::process::ExitStatus;
use std::task::Poll;
use std::time::Instant;

use super::guest_port::{BoxFuture, FollowEvent, FollowStep, LearnerStep, WatchStep};
use super::recovery::{PasstRestart, RestartHistory, RestartResult};
use super::resolvers::Watch;
use super::running::RunningNic;
use crate::sys::process::Child;
use crate::types::error_text;

/// An event of one NIC.
pub(super) enum NicEvent {
    /// Its passt has ended.
    PasstEnded(ExitStatus),
    /// The restart of its passt is done.
    Restarted(RestartResult),
    /// The learner of the guest's address has made a step.
    Learning(LearnerStep),
    /// The follower of the guest's address has made a step.
    Following(FollowStep),
    /// The watch of the port's place has made a step.
    Watched(WatchStep),
    /// The host has these DNS servers now.
    Resolvers(Vec<IpAddr>),
}

/// The work in flight for one NIC.
pub(super) struct NicWork {
    pub(super) history: RestartHistory,
    pub(super) restart: Option<PasstRestart>,
    pub(super) learning: Option<BoxFuture<'static, LearnerStep>>,
    pub(super) following: Option<BoxFuture<'static, FollowStep>>,
    pub(super) watching: Option<BoxFuture<'static, WatchStep>>,
    resolvers: Option<Watch>,
}

impl NicWork {
    /// Begins the work for a NIC: the learner and the follower of the guest's address, the watch
    /// of the host's DNS servers.
    pub(super) fn new(nic: &mut RunningNic) -> Self {
        NicWork {
            history: RestartHistory::new(Instant::now()),
            restart: None,
            learning: nic.learner.take().map(|learner| learner.next()),
            following: nic.follower.take().map(|follower| follower.next()),
            watching: nic.watch.take().map(|watch| watch.next()),
            resolvers: nic.watch_resolvers(),
        }
    }

    /// Waits for the next event of the NIC. The future can be dropped at any time.
    async fn next(&mut self, nic: &mut RunningNic) -> NicEvent {
        tokio::select! {
            biased;
            status = ended(&mut nic.passt) => NicEvent::PasstEnded(status),
            result = pending(&mut self.restart) => NicEvent::Restarted(result),
            step = pending(&mut self.learning) => NicEvent::Learning(step),
            step = pending(&mut self.following) => NicEvent::Following(step),
            step = pending(&mut self.watching) => NicEvent::Watched(step),
            // A passt that is being started reads the file by itself, and the watch compares
            // afterwards.
            servers = changed(&mut self.resolvers), if self.restart.is_none() => {
                NicEvent::Resolvers(servers)
            }
        }
    }
}

/// Waits for the next event of any NIC, and returns the NIC's place with it. If several are ready,
/// the event of the first one is returned.
pub(super) async fn first_event(
    work: &mut [NicWork],
    nics: &mut [RunningNic],
) -> (usize, NicEvent) {
    let mut events: Vec<_> =
        work.iter_mut().zip(nics).map(|(work, nic)| Box::pin(work.next(nic))).collect();
    poll_fn(|context| {
        for (place, event) in events.iter_mut().enumerate() {
            if let Poll::Ready(event) = event.as_mut().poll(context) {
                return Poll::Ready((place, event));
            }
        }
        Poll::Pending
    })
    .await
}

/// Waits for the end of a child; without a child, forever.
async fn ended(child: &mut Option<Child>) -> ExitStatus {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

/// Waits for changed DNS servers of the host; without a watch, forever.
async fn changed(watch: &mut Option<Watch>) -> Vec<IpAddr> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// Waits for the work in flight and then clears it; without work, waits forever.
pub(super) async fn pending<T>(work: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    let Some(running) = work else { return std::future::pending().await };
    let result = running.await;
    *work = None;
    result
}

/// Reports where the published ports of a guest on a bridge lead.
pub(super) fn report_following(event: FollowEvent) {
    let list = |addresses: &[IpAddr]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
    };
    match event {
        FollowEvent::Moved(addresses) if addresses.is_empty() => {
            tracing::info!("the guest has no known address, so its published ports lead nowhere");
        }
        FollowEvent::Moved(addresses) => {
            tracing::info!("the published ports lead to {}", list(&addresses));
        }
        FollowEvent::Recovered(addresses) if addresses.is_empty() => {
            tracing::warn!("the published ports follow the guest again; its address is not known");
        }
        FollowEvent::Recovered(addresses) => {
            let addresses = list(&addresses);
            tracing::warn!("the published ports follow the guest again and lead to {addresses}");
        }
        FollowEvent::Failed(error) => {
            tracing::warn!("the published ports do not follow the guest: {}", error_text(&error));
        }
    }
}
