//! The limits of a guest's or a network's traffic.
//!
//! The units are those of libvirt's `<bandwidth>`: rates in KiB per second, bursts in KiB.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The limits of both directions, seen from the guest: `inbound` is traffic to the guest, or to all
/// guests of a network, and `outbound` is traffic from them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// The limit of the traffic to the guest; `None` means no limit.
    pub inbound: Option<Rate>,
    /// The limit of the traffic from the guest; `None` means no limit.
    pub outbound: Option<Rate>,
}

impl Bandwidth {
    /// Returns whether no direction has a limit.
    pub fn is_unlimited(&self) -> bool {
        self.inbound.is_none() && self.outbound.is_none()
    }

    /// Returns the limits that exist, with their directions' names.
    fn named(&self) -> impl Iterator<Item = (&'static str, Rate)> {
        let all = [("inbound", self.inbound), ("outbound", self.outbound)];
        all.into_iter().filter_map(|(name, rate)| Some((name, rate?)))
    }

    /// Checks that the kernel can apply the limits exactly.
    ///
    /// # Errors
    /// [`BandwidthError::PeakBelowAverage`] or [`BandwidthError::LongBurst`].
    pub fn check(&self) -> Result<(), BandwidthError> {
        self.named().try_for_each(|(direction, rate)| rate.check(direction))
    }
}

/// The limit of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// The average rate, in KiB per second.
    pub average: NonZeroU32,
    /// The rate of a burst, in KiB per second; `None` means that only the link limits it.
    pub peak: Option<NonZeroU32>,
    /// The amount that may be sent at the peak rate, in KiB; `None` lets netlaunch choose.
    pub burst: Option<NonZeroU32>,
}

impl Rate {
    /// The largest burst, in seconds at the average rate. The kernel counts a burst as a time of at
    /// most 2^32 units of 64 ns, which is 274 s; tc gives it a smaller one without an error.
    pub const LONGEST_BURST: u32 = 256;
    /// The largest burst in KiB: tc keeps the number of bytes in 32 bits.
    pub const LARGEST_BURST: u32 = u32::MAX / 1024;

    fn check(&self, direction: &'static str) -> Result<(), BandwidthError> {
        let average = self.average;
        if let Some(peak) = self.peak.filter(|peak| *peak < average) {
            return Err(BandwidthError::PeakBelowAverage { direction, peak, average });
        }
        let most = average.get().saturating_mul(Rate::LONGEST_BURST).min(Rate::LARGEST_BURST);
        match self.burst.filter(|burst| burst.get() > most) {
            Some(burst) => Err(BandwidthError::LongBurst { direction, burst, most }),
            None => Ok(()),
        }
    }
}

/// Why a text or a document gives no limits that can be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BandwidthError {
    /// The text does not have the form of limits.
    #[error(
        "{0:?} is no bandwidth: write inbound=AVERAGE[/PEAK[/BURST]], outbound=..., or both with a comma between, with rates in KiB per second and BURST in KiB"
    )]
    Form(String),
    /// A direction comes twice.
    #[error("{0} comes twice in the bandwidth: keep one of the two")]
    Twice(&'static str),
    /// The peak rate is lower than the average rate.
    #[error(
        "the {direction} peak of {peak} KiB/s is lower than the average of {average} KiB/s: raise the peak or drop it"
    )]
    PeakBelowAverage {
        /// The direction.
        direction: &'static str,
        /// The peak.
        peak: NonZeroU32,
        /// The average.
        average: NonZeroU32,
    },
    /// The burst is larger than the kernel can count.
    #[error(
        "the {direction} burst of {burst} KiB is too large for its average rate: use {most} KiB or less"
    )]
    LongBurst {
        /// The direction.
        direction: &'static str,
        /// The burst.
        burst: NonZeroU32,
        /// The largest burst with this average.
        most: u32,
    },
}

impl FromStr for Bandwidth {
    type Err = BandwidthError;

    /// Reads `inbound=AVERAGE[/PEAK[/BURST]]`, `outbound=...`, or both with a comma between. An
    /// empty PEAK before a BURST means that only the link limits a burst.
    fn from_str(text: &str) -> Result<Self, BandwidthError> {
        let form = || BandwidthError::Form(text.to_owned());
        let mut bandwidth = Bandwidth::default();
        for part in text.split(',') {
            let (direction, rate) = part.split_once('=').ok_or_else(form)?;
            let (direction, place) = match direction {
                "inbound" => ("inbound", &mut bandwidth.inbound),
                "outbound" => ("outbound", &mut bandwidth.outbound),
                _ => return Err(form()),
            };
            if place.is_some() {
                return Err(BandwidthError::Twice(direction));
            }
            *place = Some(read_rate(rate).ok_or_else(form)?);
        }
        bandwidth.check()?;
        Ok(bandwidth)
    }
}

fn read_rate(text: &str) -> Option<Rate> {
    let mut parts = text.split('/');
    let average = number(parts.next()?)?;
    let (peak, burst) = (parts.next(), parts.next());
    if parts.next().is_some() {
        return None;
    }
    let peak = match (peak, burst) {
        (None, _) | (Some(""), Some(_)) => None,
        (Some(peak), _) => Some(number(peak)?),
    };
    Some(Rate { average, peak, burst: burst.map_or(Some(None), |burst| number(burst).map(Some))? })
}

fn number(text: &str) -> Option<NonZeroU32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.named().map(|(name, rate)| format!("{name}={rate}")).collect();
        f.write_str(&all.join(","))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.average.fmt(f)?;
        let text = |number: Option<NonZeroU32>| number.map(|n| n.to_string()).unwrap_or_default();
        if self.peak.is_some() || self.burst.is_some() {
            write!(f, "/{}", text(self.peak))?;
        }
        match self.burst {
            Some(burst) => write!(f, "/{burst}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_written_as_one_text() {
        for text in [
            "inbound=1000",
            "outbound=1",
            "inbound=1000/2000/512,outbound=64//128",
            "inbound=4294967295/4294967295/4194303",
        ] {
            assert_eq!(text.parse::<Bandwidth>().unwrap().to_string(), text);
        }
        let reversed: Bandwidth = "outbound=5,inbound=1000/2000".parse().unwrap();
        assert_eq!(reversed.to_string(), "inbound=1000/2000,outbound=5");
    }

    #[test]
    fn other_texts_are_refused_with_the_fix() {
        for bad in [
            "",
            "1000",
            "inbound",
            "inbound=",
            "inbound=0",
            "inbound=-1",
            "inbound=+1",
            "inbound=1k",
            "inbound=1/",
            "inbound=1/2/",
            "inbound=1/2/3/4",
            "in=1",
            "inbound=1,",
            "inbound=1, outbound=1",
            "inbound=4294967296",
        ] {
            assert_eq!(bad.parse::<Bandwidth>(), Err(BandwidthError::Form(bad.to_owned())));
        }
        for (bad, message) in [
            ("inbound=1,inbound=2", "inbound comes twice in the bandwidth: keep one of the two"),
            (
                "outbound=10/9",
                "the outbound peak of 9 KiB/s is lower than the average of 10 KiB/s: raise the peak or drop it",
            ),
            (
                "inbound=10//2561",
                "the inbound burst of 2561 KiB is too large for its average rate: use 2560 KiB or less",
            ),
        ] {
            assert_eq!(bad.parse::<Bandwidth>().unwrap_err().to_string(), message);
        }
    }
}
