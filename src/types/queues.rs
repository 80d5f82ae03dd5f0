//! The number of queue pairs of a guest's card.

use std::fmt;
use std::str::FromStr;

/// The number of queue pairs of a guest's card. With several, several virtual processors send and
/// receive at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queues {
    /// One for each virtual processor if the kernel moves the frames (vhost-net), otherwise one.
    Auto,
    /// This number, 1 to [`Queues::MOST`].
    Count(u16),
}

/// A text is not a number of queue pairs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a number of queues: use 1 to {most}, or auto", most = Queues::MOST)]
pub struct QueuesError(pub String);

impl Queues {
    /// The largest number of queue pairs. Each one costs two descriptors, a kernel thread and the
    /// guest's buffers.
    pub const MOST: u16 = 8;
}

impl FromStr for Queues {
    type Err = QueuesError;

    fn from_str(text: &str) -> Result<Self, QueuesError> {
        if text == "auto" {
            return Ok(Queues::Auto);
        }
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let count = digits.then(|| text.parse().ok()).flatten();
        let count = count.filter(|count| (1..=Queues::MOST).contains(count));
        count.map(Queues::Count).ok_or_else(|| QueuesError(text.to_owned()))
    }
}

impl fmt::Display for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Queues::Auto => f.write_str("auto"),
            Queues::Count(count) => write!(f, "{count}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_a_small_number_or_auto() {
        assert_eq!("auto".parse(), Ok(Queues::Auto));
        assert_eq!("8".parse(), Ok(Queues::Count(8)));
        for bad in ["0", "9", "-1", "+1", "", "65537", "many"] {
            assert_eq!(bad.parse::<Queues>(), Err(QueuesError(bad.to_owned())));
        }
    }
}
