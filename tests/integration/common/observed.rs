//! A learner that is observed: whatever comes, what it believes has a cause in the frames, found
//! here by other means than its own.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlaunch::nwfilter::learn::Sender::{self, Guest, Network};
use netlaunch::nwfilter::learn::packet::{self, Message, Payload};
use netlaunch::nwfilter::learn::{
    AddressChange, BootTime, FrameSet, Learner, Lease, LeaseSource, Method, program,
};
use netlaunch::types::Mac;

use super::bpf_machine::run;
use super::dhcp_frame::{ACK, DECLINE, EVERYONE, GUEST, NAK, RELEASE};

/// A learner for [`GUEST`], and what is to be expected of it.
pub struct Observed {
    learner: Learner,
    method: Method,
    hosts: Vec<Ipv4Net>,
    /// The transaction of the guest's last request, until an answer to it taught something.
    asked: Option<u32>,
    /// Something was learned before.
    taught: bool,
    /// Some of that has stood its check.
    checked: bool,
}

impl Observed {
    /// One that knows nothing yet.
    pub fn new(method: Method, hosts: Vec<Ipv4Net>) -> Self {
        let learner = Learner::new(method.clone(), guest(), hosts.clone());
        Observed { learner, method, hosts, asked: None, taught: false, checked: false }
    }

    /// The lease that is in force.
    pub fn lease(&self) -> Option<Lease> {
        self.learner.lease()
    }

    /// A frame comes.
    ///
    /// # Panics
    /// When anything but the frame's right effect is there.
    pub fn process_frame(
        &mut self,
        way: Sender,
        frame: &[u8],
        now: BootTime,
    ) -> Option<AddressChange> {
        let interest = self.learner.frames();
        let (before, state) = (self.lease(), format!("{:?}", self.learner));
        let change = self.learner.process_frame(way, frame, now);
        if change.is_some() || state != format!("{:?}", self.learner) {
            let program = program(interest, guest());
            assert_ne!(run(&program, way == Network, false, frame), 0, "the kernel drops it");
        }
        self.check_account(before, change);
        if way == Guest {
            self.note_request(frame);
        }
        match change {
            Some(AddressChange::Learned(lease) | AddressChange::Renewed(lease)) => {
                match lease.source {
                    LeaseSource::Dhcp { .. } => self.check_answer(way, frame, lease, now),
                    LeaseSource::Traffic => self.check_speech(way, frame, lease),
                }
                self.taught = true;
            }
            Some(AddressChange::Forgotten(address)) => self.check_loss(way, frame, address, before),
            None => {}
        }
        self.check_interest();
        change
    }

    /// The host has these addresses by the time that the lease is put in force.
    ///
    /// # Panics
    /// When anything but an address that is the host's is forgotten.
    pub fn check(&mut self, hosts: Vec<Ipv4Net>) -> Option<AddressChange> {
        let before = self.lease();
        self.hosts = hosts;
        let change = self.learner.check(self.hosts.clone());
        let refused = before.filter(|lease| self.refuses(lease.address));
        assert_eq!(change, refused.map(|lease| AddressChange::Forgotten(lease.address)));
        self.check_account(before, change);
        if change.is_some() && !self.checked {
            self.taught = false;
        }
        self.checked = self.taught;
        self.check_interest();
        change
    }

    /// Packets that are not DHCP matter until something was learned that stood its check.
    fn check_interest(&self) {
        let wide = self.method.by_traffic && !self.checked;
        assert_eq!(self.learner.frames(), if wide { FrameSet::All } else { FrameSet::Dhcp });
        assert_eq!(self.learner.had_address(), self.checked);
    }

    /// Time has passed.
    ///
    /// # Panics
    /// When anything but a lease whose time is over is forgotten.
    pub fn expire(&mut self, now: BootTime) -> Option<AddressChange> {
        let before = self.lease();
        let over = before.filter(|lease| lease.until.is_some_and(|until| until <= now));
        let change = self.learner.expire(now);
        assert_eq!(change, over.map(|lease| AddressChange::Forgotten(lease.address)));
        self.check_account(before, change);
        change
    }

    /// Another learner goes on with this lease.
    ///
    /// # Panics
    /// When it takes over what it may not, or does not take over what it may.
    pub fn resume(&mut self, lease: Option<Lease>, now: BootTime) {
        let learner = Learner::new(self.method.clone(), guest(), self.hosts.clone());
        self.learner = learner.resumed(lease, now);
        (self.asked, self.taught, self.checked) = (None, true, true);
        let lives = |lease: &Lease| lease.until.is_none_or(|until| until > now);
        let Method { by_traffic, servers } = &self.method;
        let could_be_learned = |lease: &Lease| match lease.source {
            LeaseSource::Dhcp { server } => servers.is_empty() || servers.contains(&server),
            LeaseSource::Traffic => *by_traffic,
        };
        let holds = |lease: &Lease| lives(lease) && could_be_learned(lease);
        let expected = lease.filter(|lease| holds(lease) && !self.refuses(lease.address));
        assert_eq!(self.lease(), expected);
        assert_eq!(self.learner.frames(), FrameSet::Dhcp);
    }

    /// The change is the difference between the leases, and neither the lease nor the offer is one
    /// that no guest may have.
    fn check_account(&self, before: Option<Lease>, change: Option<AddressChange>) {
        let after = self.lease();
        match (before, change) {
            (Some(old), Some(AddressChange::Learned(new))) => assert_ne!(old.address, new.address),
            (old, Some(AddressChange::Renewed(new))) => {
                assert_eq!(old.unwrap().address, new.address)
            }
            (old, Some(AddressChange::Forgotten(address))) => {
                assert_eq!(old.unwrap().address, address)
            }
            (_, None | Some(AddressChange::Learned(_))) => {}
        }
        let expected = match change {
            Some(AddressChange::Learned(lease) | AddressChange::Renewed(lease)) => Some(lease),
            Some(AddressChange::Forgotten(_)) => None,
            None => before,
        };
        assert_eq!(after, expected);
        for address in after.map(|lease| lease.address).into_iter().chain(self.learner.offered()) {
            assert!(!self.refuses(address), "{address}");
        }
    }

    /// A server has given this lease, and it was asked to.
    fn check_answer(&mut self, way: Sender, frame: &[u8], lease: Lease, now: BootTime) {
        assert_eq!(way, Network);
        self.check_servers(frame, ACK);
        assert_eq!(bootp(frame)[16..20], lease.address.octets());
        assert_eq!(lease.source, LeaseSource::Dhcp { server: source(frame) });
        assert_ne!(lease.address, source(frame), "it is the server's");
        assert!(lease.until.is_none_or(|until| until > now), "{lease:?}");
        self.asked = None;
    }

    /// The guest was the first to say this address, and may.
    fn check_speech(&self, way: Sender, frame: &[u8], lease: Lease) {
        assert_eq!((way, self.method.by_traffic, self.taught), (Guest, true, false));
        assert_eq!(frame[6..12], GUEST);
        let place = if frame[12..14] == [8, 6] { 28..32 } else { 26..30 };
        assert_eq!(frame[place], lease.address.octets());
        assert_eq!(lease.until, None);
    }

    /// The guest gave the address back, or its server took it.
    fn check_loss(&mut self, way: Sender, frame: &[u8], address: Ipv4Addr, before: Option<Lease>) {
        assert!(before.unwrap().source.is_dhcp(), "{before:?}");
        match way {
            Guest => {
                assert_eq!(frame[6..12], GUEST);
                assert_eq!(bootp(frame)[28..34], GUEST);
                assert!(has_type(frame, RELEASE) || has_type(frame, DECLINE));
                let names = |bytes: &[u8]| bytes == address.octets();
                assert!(bootp(frame).windows(4).any(names), "{address}");
            }
            Network => {
                self.check_servers(frame, NAK);
                self.asked = None;
            }
        }
    }

    /// It is a message of this type, of a server whose answers count, to the guest's last request.
    fn check_servers(&self, frame: &[u8], message: u8) {
        assert!(has_type(frame, message), "no message of type {message}");
        assert!(frame[0..6] == GUEST || frame[0..6] == EVERYONE);
        assert_eq!(bootp(frame)[28..34], GUEST);
        let transaction = <[u8; 4]>::try_from(&bootp(frame)[4..8]).unwrap();
        assert_eq!(Some(u32::from_be_bytes(transaction)), self.asked);
        let server = source(frame);
        let servers = &self.method.servers;
        assert!(servers.is_empty() || servers.contains(&server), "{server}");
    }

    fn note_request(&mut self, frame: &[u8]) {
        let Some(packet::Frame { source, content: Payload::Ip(packet), .. }) = packet::read(frame)
        else {
            return;
        };
        let Some(dhcp) = packet.dhcp else { return };
        let is_request = matches!(dhcp.message, Message::Discover | Message::Request);
        if is_request && source == guest().into() && dhcp.client == guest().into() {
            self.asked = Some(dhcp.transaction);
        }
    }

    /// Whether no guest may have this address.
    fn refuses(&self, address: Ipv4Addr) -> bool {
        if self.method.servers.contains(&address) {
            return true;
        }
        let blocks = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"];
        let is_special =
            blocks.iter().any(|block| block.parse::<Ipv4Net>().unwrap().contains(&address));
        let is_hosts = |net: &Ipv4Net| {
            let is_edge = [net.network(), net.broadcast()].contains(&address);
            address == net.addr() || (net.prefix_len() < 31 && is_edge)
        };
        is_special || self.hosts.iter().any(is_hosts)
    }
}

fn guest() -> Mac {
    "52:54:00:11:22:33".parse().unwrap()
}

/// Where the IPv4 packet in a frame says it comes from.
fn source(frame: &[u8]) -> Ipv4Addr {
    <[u8; 4]>::try_from(&frame[26..30]).unwrap().into()
}

/// The bytes behind the UDP header: a BOOTP message, if there is one.
fn bootp(frame: &[u8]) -> &[u8] {
    &frame[14 + usize::from(frame[14] & 15) * 4 + 8..]
}

/// Whether there is a DHCP message's type in it, wherever its options are.
fn has_type(frame: &[u8], message: u8) -> bool {
    bootp(frame).windows(3).any(|option| option == [53, 1, message])
}
