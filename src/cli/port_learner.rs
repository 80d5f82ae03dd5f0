//! The learner of a guest's address, in the form in which the launcher calls it.

use crate::launcher::guest_port::{
    AddressLearner, BoxFuture, GuestPortError, LearningEvent, LearningStep,
};
use crate::nwfilter::port::{self, Learning};

/// Learns the address of a guest for the rules of its port.
#[derive(Debug)]
pub(super) struct PortLearner(pub(super) Learning);

impl AddressLearner for PortLearner {
    fn next(self: Box<Self>) -> BoxFuture<'static, LearningStep> {
        Box::pin(async move {
            let (event, learning) = self.0.next().await;
            let event = match event {
                port::LearningEvent::RulesSet { address, addresses6 } => {
                    LearningEvent::Learned { address, addresses6 }
                }
                port::LearningEvent::RulesNotSet(error) => {
                    LearningEvent::Failed(GuestPortError::new(error))
                }
                port::LearningEvent::Ended(error) => {
                    LearningEvent::Ended(error.map(GuestPortError::new))
                }
            };
            let learner =
                learning.map(|learning| Box::new(PortLearner(learning)) as Box<dyn AddressLearner>);
            (event, learner)
        })
    }
}
