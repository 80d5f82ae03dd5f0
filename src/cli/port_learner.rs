//! The learner of a guest's address, in the form in which the launcher calls it. The follower of
//! the published ports gets the address, too.

use std::net::Ipv4Addr;

use tokio::sync::watch;

use crate::launcher::guest_port::{
    AddressLearner, BoxFuture, GuestPortError, LearnerEvent, LearnerStep,
};
use crate::nwfilter::port::{self, Learning};

/// Learns the address of a guest for the rules of its port.
#[derive(Debug)]
pub(super) struct PortLearner {
    pub(super) learning: Learning,
    /// The address that the rules have now.
    pub(super) learned: watch::Sender<Option<Ipv4Addr>>,
}

impl AddressLearner for PortLearner {
    fn next(self: Box<Self>) -> BoxFuture<'static, LearnerStep> {
        Box::pin(async move {
            let PortLearner { learning, learned } = *self;
            let (event, learning) = learning.next().await;
            let event = match event {
                port::LearningEvent::RulesSet { address, addresses6 } => {
                    learned.send_replace(address);
                    LearnerEvent::Learned { address, addresses6 }
                }
                port::LearningEvent::RulesNotSet(error) => {
                    LearnerEvent::Failed(GuestPortError::new(error))
                }
                port::LearningEvent::Ended(error) => {
                    LearnerEvent::Ended(error.map(GuestPortError::new))
                }
            };
            let learner = learning.map(|learning| {
                Box::new(PortLearner { learning, learned }) as Box<dyn AddressLearner>
            });
            (event, learner)
        })
    }
}
