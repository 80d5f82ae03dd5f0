//! Makes the classic BPF program that drops in the kernel every frame from which the learner cannot
//! learn.
//!
//! A program is a list of *alternatives*, one for each kind of useful frame. An alternative is a
//! list of conditions: the first condition that does not hold jumps to the next alternative, and
//! the last instruction drops the frame. A load beyond the end of the frame drops it, too, by the
//! rules of the BPF machine (filter.txt in the kernel's documentation).
//!
//! The program passes every frame that [`super::packet`], [`super::packet6`] and the learner
//! accept, and some more: it does not look at DHCP options or at the transaction. A program with
//! the transaction of the guest's last request could only be attached after that request, and a
//! server nearby answers sooner.
//!
//! It never passes a frame with a VLAN tag, which the kernel has already removed from the bytes: an
//! answer in another VLAN is not for this port.

use crate::types::Mac;

use super::packet::{ARP, CHADDR, CLIENT_PORT, ETHERNET, IPV4, SERVER_PORT, UDP, UDP_HEADER};
use super::packet6::{
    ADVERTISEMENT, CLIENT_PORT6, ICMPV6, IPV6, IPV6_HEADER, ROUTER_ADVERTISEMENT, SERVER_PORT6,
    SOLICITATION,
};

/// One instruction of the kernel's BPF machine (`struct sock_filter` in linux/filter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// The number of instructions to skip if a condition holds.
    pub jt: u8,
    /// The number of instructions to skip otherwise.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

impl From<Instruction> for libc::sock_filter {
    fn from(Instruction { code, jt, jf, k }: Instruction) -> Self {
        libc::sock_filter { code, jt, jf, k }
    }
}

/// The set of frames that the learner needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameSet {
    /// DHCP messages from the guest and for the guest.
    Dhcp,
    /// DHCP messages, and ARP and IPv4 packets in which the guest uses an address.
    All,
}

/// The set of frames that the learner needs for IPv6 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameSet6 {
    /// DHCPv6 and neighbor discovery without the guest's solicitations, and so without its tests of
    /// addresses.
    WithoutTests,
    /// DHCPv6 and neighbor discovery.
    All,
}

/// The frames that the learner needs, for both versions of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Frames {
    /// The frames for the IPv4 address, if it is learned.
    pub v4: Option<FrameSet>,
    /// The frames for the IPv6 addresses, if they are learned.
    pub v6: Option<FrameSet6>,
}

impl From<FrameSet> for Frames {
    fn from(v4: FrameSet) -> Self {
        Frames { v4: Some(v4), v6: None }
    }
}

/// The number of bytes to pass: more than any frame has.
const WHOLE: u32 = 0x4_0000;

/// Returns the program for a guest with this MAC address.
pub fn program(frames: impl Into<Frames>, guest: Mac) -> Vec<Instruction> {
    let frames = frames.into();
    let guest = guest.octets();
    let mut alternatives = Vec::new();
    if frames.v4.is_some() {
        let asks = dhcp(CLIENT_PORT, SERVER_PORT, guest);
        let answers = dhcp(SERVER_PORT, CLIENT_PORT, guest);
        alternatives.push([vec![untagged(), from_guest()], source_is(guest), asks]);
        alternatives.push([vec![untagged(), to_guest()], vec![], answers]);
    }
    if let Some(v6) = frames.v6 {
        let own = || vec![untagged(), from_guest()];
        if v6 == FrameSet6::All {
            alternatives.push([own(), source_is(guest), neighbor(SOLICITATION)]);
        }
        alternatives.push([own(), source_is(guest), neighbor(ADVERTISEMENT)]);
        for kind in [ROUTER_ADVERTISEMENT, SOLICITATION, ADVERTISEMENT] {
            let mut message = neighbor(kind);
            if kind == SOLICITATION {
                // Only a test of an address, whose source is `::`, can conflict with the guest's.
                let at = ETHERNET + 8;
                let words = (0..4).map(|word| load(libc::BPF_W, libc::BPF_ABS, at + 4 * word));
                message.extend(words.map(|word| equal(word, 0, true)));
            }
            alternatives.push([vec![untagged(), to_guest()], vec![], message]);
        }
        alternatives.push([own(), source_is(guest), dhcp6(CLIENT_PORT6, SERVER_PORT6)]);
        let answer = dhcp6(SERVER_PORT6, CLIENT_PORT6);
        let for_guest = address(libc::BPF_ABS, 0, guest).to_vec();
        alternatives.push([vec![untagged(), to_guest()], for_guest, answer]);
    }
    if frames.v4 == Some(FrameSet::All) {
        for content in [arp(guest), ip()] {
            alternatives.push([vec![untagged(), from_guest()], source_is(guest), content]);
        }
    }
    let mut program: Vec<Instruction> =
        alternatives.iter().flat_map(|parts| alternative(&parts.concat())).collect();
    program.push(statement(libc::BPF_RET | libc::BPF_K, 0));
    program
}

/// Returns a program like [`program`] for an interface that sends the frames of the guest and
/// receives those for the guest, such as a macvtap.
pub fn program_of_sent(frames: impl Into<Frames>, guest: Mac) -> Vec<Instruction> {
    let mut program = program(frames, guest);
    let direction = to_guest().load;
    let mut is_about_direction = false;
    for instruction in &mut program {
        if is_about_direction {
            std::mem::swap(&mut instruction.jt, &mut instruction.jf);
        }
        is_about_direction = *instruction == direction;
    }
    program
}

/// A condition on a frame.
#[derive(Debug, Clone, Copy)]
struct Condition {
    /// The instruction that loads the value.
    load: Instruction,
    /// `BPF_JEQ`, `BPF_JGE` or `BPF_JSET`.
    comparison: u32,
    /// The constant to compare with the value.
    with: u32,
    /// The result of the comparison for which the condition holds.
    wanted: bool,
}

/// Returns the instructions of an alternative: two for each condition, and one that passes the
/// frame.
///
/// The first instruction sets X to the length of the IPv4 header. The machine can do this for every
/// frame that has this byte; only conditions after the EtherType use X.
fn alternative(conditions: &[Condition]) -> Vec<Instruction> {
    let header = statement(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, ETHERNET as u32);
    let mut instructions = vec![header];
    for (done, condition) in conditions.iter().enumerate() {
        // Jumps over the remaining conditions and the return. There are at most 17 conditions, so
        // the distance fits.
        let out = (2 * (conditions.len() - done - 1) + 1) as u8;
        let (yes, no) = if condition.wanted { (0, out) } else { (out, 0) };
        instructions.push(condition.load);
        let code = libc::BPF_JMP | condition.comparison | libc::BPF_K;
        let code = code as u16;
        instructions.push(Instruction { code, jt: yes, jf: no, k: condition.with });
    }
    instructions.push(statement(libc::BPF_RET | libc::BPF_K, WHOLE));
    instructions
}

fn statement(code: u32, k: u32) -> Instruction {
    Instruction { code: code as u16, jt: 0, jf: 0, k }
}

/// Loads a value of a size at an offset, which counts from the start of the frame or, behind the
/// IPv4 header, from X.
fn load(size: u32, mode: u32, at: usize) -> Instruction {
    statement(libc::BPF_LD | size | mode, at as u32)
}

fn equal(load: Instruction, with: u32, wanted: bool) -> Condition {
    Condition { load, comparison: libc::BPF_JEQ, with, wanted }
}

fn byte(at: usize, with: u8, wanted: bool) -> Condition {
    equal(load(libc::BPF_B, libc::BPF_ABS, at), with.into(), wanted)
}

fn half(mode: u32, at: usize, with: u16, wanted: bool) -> Condition {
    equal(load(libc::BPF_H, mode, at), with.into(), wanted)
}

/// Compares a hardware address.
fn address(mode: u32, at: usize, address: [u8; 6]) -> [Condition; 2] {
    let [a, b, c, d, e, f] = address;
    let first = u32::from_be_bytes([a, b, c, d]);
    [
        equal(load(libc::BPF_W, mode, at), first, true),
        half(mode, at + 4, u16::from_be_bytes([e, f]), true),
    ]
}

/// Compares a property of the frame that is not in its bytes.
fn about_frame(what: i32, with: u32, wanted: bool) -> Condition {
    let load =
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, (libc::SKF_AD_OFF + what) as u32);
    equal(load, with, wanted)
}

fn untagged() -> Condition {
    about_frame(libc::SKF_AD_VLAN_TAG_PRESENT, 0, true)
}

/// Frames that leave the host through the port are for the guest.
fn to_guest() -> Condition {
    about_frame(libc::SKF_AD_PKTTYPE, libc::PACKET_OUTGOING.into(), true)
}

fn from_guest() -> Condition {
    Condition { wanted: false, ..to_guest() }
}

fn source_is(guest: [u8; 6]) -> Vec<Condition> {
    address(libc::BPF_ABS, 6, guest).to_vec()
}

fn ether_type(is: u16) -> Condition {
    half(libc::BPF_ABS, 12, is, true)
}

/// Matches DHCP between these ports for the guest, not in fragments.
fn dhcp(source: u16, destination: u16, guest: [u8; 6]) -> Vec<Condition> {
    let fragment = Condition {
        load: load(libc::BPF_H, libc::BPF_ABS, ETHERNET + 6),
        comparison: libc::BPF_JSET,
        with: 0x3fff,
        wanted: false,
    };
    let mut conditions = vec![
        ether_type(IPV4),
        byte(ETHERNET + 9, UDP, true),
        fragment,
        half(libc::BPF_IND, ETHERNET, source, true),
        half(libc::BPF_IND, ETHERNET + 2, destination, true),
    ];
    conditions.extend(address(libc::BPF_IND, ETHERNET + UDP_HEADER + CHADDR, guest));
    conditions
}

/// Matches a neighbor discovery message without extension headers.
fn neighbor(kind: u8) -> Vec<Condition> {
    let message = ETHERNET + IPV6_HEADER;
    vec![ether_type(IPV6), byte(ETHERNET + 6, ICMPV6, true), byte(message, kind, true)]
}

/// Matches DHCPv6 between these ports without extension headers.
fn dhcp6(source: u16, destination: u16) -> Vec<Condition> {
    let datagram = ETHERNET + IPV6_HEADER;
    vec![
        ether_type(IPV6),
        byte(ETHERNET + 6, UDP, true),
        half(libc::BPF_ABS, datagram, source, true),
        half(libc::BPF_ABS, datagram + 2, destination, true),
    ]
}

/// Matches ARP in which the guest uses an address.
fn arp(guest: [u8; 6]) -> Vec<Condition> {
    let mut conditions = vec![ether_type(ARP)];
    conditions.extend(address(libc::BPF_ABS, ETHERNET + 8, guest));
    conditions.extend(says_address(ETHERNET + 14));
    conditions
}

/// Matches an IPv4 packet whose source can be a guest's address.
fn ip() -> Vec<Condition> {
    let mut conditions = vec![ether_type(IPV4)];
    conditions.extend(says_address(ETHERNET + 12));
    conditions
}

/// Matches an address outside the blocks that the learner rejects. The learner itself rejects the
/// host's own addresses.
fn says_address(at: usize) -> [Condition; 4] {
    let class_d_or_e = Condition { comparison: libc::BPF_JGE, ..byte(at, 224, false) };
    let link_local = half(libc::BPF_ABS, at, 0xa9fe, false);
    [byte(at, 0, false), byte(at, 127, false), class_d_or_e, link_local]
}
