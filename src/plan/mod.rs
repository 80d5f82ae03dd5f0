//! From a request and the facts to every command line: pure, nothing is started or looked at here.
//!
//! ```text
//! Request ─ check ─┐
//! Facts ───────────┼─ candidates ─ choice ─▶ Plan { passt, QEMU, files } ─▶ print, or start
//! Particulars ─────┘
//! ```
//!
//! [`plan`] is deterministic: what differs between two equal launches (the directory's name, the
//! random MAC address, passt's user) comes in as [`Particulars`].

mod bridge;
mod choice;
mod error;
mod memory;
mod passt_args;
mod print;
mod qemu_args;
mod request;
mod request_error;
mod slirp_args;
mod xml;

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::facts::{Facts, Problem, Qemu};
use crate::types::{DEFAULT_VIEW, Device, GuestView, Id, Mac, Publish, TransientUser, UserName};

pub use bridge::{BridgePlan, Way};
pub use choice::{Candidate, candidates};
pub use error::PlanError;
pub use memory::MemoryError;
pub use print::{PLAN_VERSION, json, shell, shell_line};
pub use request::{
    AddressChoice, Attachment, Backend, Command, Family, GuestFilter, MAX_MTU, Request, Transport,
};
pub use request_error::RequestError;
pub use xml::{unsaid, xml};

/// The longest socket path that every passt takes (measured: one byte less than the kernel's 107,
/// because Debian 12's passt cuts that one short without a word).
pub const MAX_SOCKET_PATH: usize = 106;

/// What is particular to one launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Particulars {
    /// The launch directory.
    pub dir: PathBuf,
    /// The guest's address where the request names none.
    pub mac: Mac,
    /// A descriptor number that QEMU has not inherited, for the fd transport or a tap.
    pub qemu_fd: RawFd,
    /// The user that passt becomes; `None` where it stays the caller's.
    pub passt_user: Option<TransientUser>,
}

/// Everything there is to start for one launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The backend chosen.
    pub backend: Backend,
    /// Why the preferred backend is not used; `None` when it is, or when this one was named.
    pub fallback: Option<String>,
    /// How passt and QEMU are connected; `None` on the other backends.
    pub transport: Option<Transport>,
    /// What the guest is told; `None` when it mirrors the host, has no IPv4, or is on a bridge.
    pub view: Option<GuestView>,
    /// The DNS server the guest is told; `None` where passt decides, from the host's resolvers.
    pub dns: Option<IpAddr>,
    /// The guest card's address.
    pub mac: Mac,
    /// `id=` of the netdev.
    pub id: Id,
    /// Published ports.
    pub publish: Vec<Publish>,
    /// QEMU's side.
    pub qemu: QemuPlan,
    /// passt's side; `None` on the other backends.
    pub passt: Option<PasstPlan>,
    /// The bridge's side; `None` on the other backends.
    pub bridge: Option<BridgePlan>,
    /// Whom QEMU runs as; `None` is the caller.
    pub user: Option<UserName>,
    /// The launch's name in `netlaunch ps`, where one was given.
    pub name: Option<String>,
    /// The launch directory.
    pub dir: PathBuf,
    /// What the user should know, a sentence each.
    pub notes: Vec<String>,
}

/// How QEMU is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuPlan {
    /// The program; `None` in serve mode.
    pub program: Option<PathBuf>,
    /// The name it was called by, its `argv[0]`; `None` in serve mode.
    pub name: Option<OsString>,
    /// The caller's own arguments.
    pub user_args: Vec<OsString>,
    /// The arguments that give the guest its network, to follow the caller's.
    pub args: Vec<OsString>,
    /// The descriptor number at which QEMU expects its end of the fd transport, or its tap.
    pub fd: Option<RawFd>,
    /// Whether QEMU connects again when passt was restarted.
    pub reconnects: bool,
}

impl QemuPlan {
    /// The whole argument vector; `None` in serve mode.
    pub fn argv(&self) -> Option<Vec<OsString>> {
        let name = self.name.clone()?;
        Some([name].into_iter().chain(self.user_args.clone()).chain(self.args.clone()).collect())
    }
}

/// How passt is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasstPlan {
    /// The program.
    pub program: PathBuf,
    /// The whole argument vector.
    pub argv: Vec<OsString>,
    /// The listening socket; `None` with the fd transport.
    pub socket: Option<PathBuf>,
    /// The file that holds passt's process number as the host sees it.
    pub pid: PathBuf,
    /// The file that takes what passt prints.
    pub log: PathBuf,
    /// The descriptor number at which passt expects its end (fd transport).
    pub fd: Option<RawFd>,
    /// The user that passt becomes; `None` where it stays the caller's.
    pub user: Option<TransientUser>,
}

/// Makes the plan for `request` on a host of which `facts` are known.
///
/// # Errors
/// [`PlanError`]: the request contradicts itself, QEMU cannot be run, or no backend that was
/// allowed can serve; in the last case with every candidate's reason and fix.
pub fn plan(
    request: &Request,
    facts: &Facts,
    particulars: &Particulars,
) -> Result<Plan, PlanError> {
    request.check()?;
    let mut notes = Vec::new();
    let assumed;
    let facts = match (&request.command, &facts.qemu.path) {
        (None, None) => {
            notes.push(
                "no QEMU was found here to ask, so the arguments are what QEMU 7.2 and later take"
                    .to_owned(),
            );
            assumed = Facts { qemu: any_qemu(), ..facts.clone() };
            &assumed
        }
        _ => facts,
    };
    if let (Some(problem), Some(_)) = (&facts.qemu.problem, &request.command) {
        let problem = problem.clone();
        return Err(match facts.qemu.path {
            None => PlanError::QemuMissing(problem),
            Some(_) => PlanError::QemuUnusable(problem),
        });
    }
    if let Some(user) = request.user.as_ref().filter(|_| !facts.host.root) {
        return Err(PlanError::UserNotRoot(user.clone()));
    }
    let view = view(request, facts, &mut notes)?;
    let (backend, fallback) = choose(request, facts)?;
    let draft = Draft { request, facts, particulars, view };
    let link = match backend {
        Backend::Slirp => Link::Slirp,
        Backend::Passt => {
            let transport = transport(&draft, &mut notes)?;
            Link::Passt(transport, passt_plan(&draft, transport)?)
        }
        Backend::Bridge => {
            let unusable = |Problem { why, fix }| {
                PlanError::Unusable(Candidate { backend, usable: false, why, fix: Some(fix) })
            };
            Link::Bridge(bridge::bridge_plan(&draft).map_err(unusable)?)
        }
    };
    let qemu = qemu_args::qemu_plan(&draft, &link, &mut notes)?;
    let (transport, passt, bridge) = match link {
        Link::Slirp => (None, None, None),
        Link::Passt(transport, passt) => (Some(transport), Some(passt), None),
        Link::Bridge(bridge) => (None, None, Some(bridge)),
    };
    Ok(Plan {
        backend,
        fallback,
        transport,
        view,
        dns: draft.dns(backend),
        mac: draft.mac(),
        id: request.id.clone(),
        publish: request.publish.clone(),
        qemu,
        passt,
        bridge,
        user: request.user.clone(),
        name: request.name.as_ref().map(|n| n.to_string()),
        dir: particulars.dir.clone(),
        notes,
    })
}

/// The QEMU that serve mode assumes where none is to be found, as in a container beside QEMU's.
fn any_qemu() -> Qemu {
    let netdevs = ["bridge", "stream", "tap", "user", "vhost-user"].map(str::to_owned).into();
    Qemu { netdevs, ..Qemu::default() }
}

/// What connects QEMU to its network.
enum Link {
    Slirp,
    Passt(Transport, PasstPlan),
    Bridge(BridgePlan),
}

/// What the parts of a plan are made from.
struct Draft<'a> {
    request: &'a Request,
    facts: &'a Facts,
    particulars: &'a Particulars,
    view: Option<GuestView>,
}

impl Draft<'_> {
    fn mac(&self) -> Mac {
        self.request.mac.unwrap_or(self.particulars.mac)
    }

    /// The DNS server the guest is told, as far as that is ours to say.
    fn dns(&self, backend: Backend) -> Option<IpAddr> {
        if backend == Backend::Bridge {
            return None;
        }
        let forwarded = backend == Backend::Slirp || passt_args::forwarded_to(self.facts).is_some();
        let own = self.view.map(|view| IpAddr::V4(view.dns)).filter(|_| forwarded);
        self.foreign_dns().or(own)
    }

    /// The DNS server that is handed to the guest as it is, when one outside its subnet was named.
    fn foreign_dns(&self) -> Option<IpAddr> {
        let forwarder = self.view.map(|view| IpAddr::V4(view.dns));
        self.request.dns.filter(|dns| Some(*dns) != forwarder)
    }
}

/// The network the guest sees; `None` when it mirrors the host or has no IPv4.
fn view(
    request: &Request,
    facts: &Facts,
    notes: &mut Vec<String>,
) -> Result<Option<GuestView>, PlanError> {
    let overlapping = |subnet: &ipnet::Ipv4Net| {
        facts.host.routes.iter().find(|r| r.contains(subnet) || subnet.contains(*r))
    };
    let address = match request.address {
        _ if request.family == Family::V6 || request.attachment.is_some() => return Ok(None),
        AddressChoice::Host => return Ok(None),
        AddressChoice::Fixed(address) => {
            if let Some(route) = overlapping(&address.subnet()) {
                notes.push(format!(
                    "this host routes {route}, which the guest's subnet {} hides from the guest",
                    address.subnet()
                ));
            }
            address
        }
        AddressChoice::Default => {
            let [usual, ..] = DEFAULT_VIEW;
            let free = DEFAULT_VIEW.iter().find(|subnet| overlapping(subnet).is_none());
            let subnet = *free.unwrap_or(&usual);
            match (overlapping(&usual), free) {
                (Some(route), Some(_)) => notes
                    .push(format!("this host routes {route}, so the guest's subnet is {subnet}")),
                (Some(route), None) => notes.push(format!(
                    "this host routes {route}, which the guest's subnet {subnet} hides from the guest, and all others that are tried; name one with --address"
                )),
                (None, _) => {}
            }
            GuestView::in_subnet(subnet).map_err(PlanError::View)?.address
        }
    };
    GuestView::new(address, request.gateway, request.forwarder(address))
        .map(Some)
        .map_err(PlanError::View)
}

/// The error of a named backend that cannot serve. slirp and the bridge do not lack options by their
/// version: where the host can serve them without the options, the options are the mistake.
fn unusable(candidate: Candidate, request: &Request, facts: &Facts) -> PlanError {
    let plain = Request {
        backend: request.backend,
        attachment: request.attachment.clone(),
        command: request.command.clone(),
        ..Request::default()
    };
    let serves = |c: &Candidate| c.usable && c.backend == candidate.backend;
    match candidate.backend {
        Backend::Passt => PlanError::Unusable(candidate),
        _ if candidates(&plain, facts).iter().any(serves) => PlanError::Options(candidate),
        _ => PlanError::Unusable(candidate),
    }
}

/// The backend, and why not the preferred one.
fn choose(request: &Request, facts: &Facts) -> Result<(Backend, Option<String>), PlanError> {
    let candidates = candidates(request, facts);
    match request.backend {
        Some(named) => match candidates.into_iter().find(|c| c.backend == named) {
            Some(candidate) if !candidate.usable => Err(unusable(candidate, request, facts)),
            _ => Ok((named, None)),
        },
        None => {
            let automatic = candidates.into_iter().filter(|c| c.backend.is_automatic());
            let candidates: Vec<Candidate> = automatic.collect();
            match candidates.iter().position(|c| c.usable) {
                Some(0) => Ok((candidates[0].backend, None)),
                Some(n) => Ok((candidates[n].backend, Some(candidates[0].why.clone()))),
                None => Err(PlanError::NoBackend(candidates)),
            }
        }
    }
}

/// The transport asked for; else a UNIX socket, or none where passt may not make one.
fn transport(draft: &Draft, notes: &mut Vec<String>) -> Result<Transport, PlanError> {
    let dir = &draft.particulars.dir;
    let denied = draft.facts.passt.confinement.as_ref().filter(|c| !c.allows(dir));
    match (draft.request.transport, denied) {
        (Some(Transport::Fd), _) => Ok(Transport::Fd),
        // The launch directory with the socket is closed to that user.
        (None, _) if draft.request.user.is_some() => Ok(Transport::Fd),
        (named, None) => Ok(named.unwrap_or(Transport::Unix)),
        (None, Some(profile)) if draft.request.command.is_some() => {
            notes.push(format!(
                "the AppArmor profile {} forbids passt a socket in {}, so QEMU is connected by --transport fd",
                profile.profile,
                dir.display()
            ));
            Ok(Transport::Fd)
        }
        (_, Some(profile)) => Err(PlanError::Unusable(Candidate {
            backend: Backend::Passt,
            usable: false,
            why: format!(
                "the AppArmor profile {} forbids it a socket in {}",
                profile.profile,
                dir.display()
            ),
            fix: Some("set NETLAUNCH_STATE_DIR to a directory below /tmp or your home".into()),
        })),
    }
}

fn passt_plan(draft: &Draft, transport: Transport) -> Result<PasstPlan, PlanError> {
    /// The only descriptor that passt gets besides the standard ones.
    const PASST_FD: RawFd = 3;
    let dir = &draft.particulars.dir;
    let path = dir.join("passt.sock");
    let length = path.as_os_str().as_bytes().len();
    let socket = (transport != Transport::Fd).then_some(path);
    if let Some(path) = socket.clone().filter(|_| length > MAX_SOCKET_PATH) {
        return Err(PlanError::SocketPath { path, length });
    }
    let program = draft.facts.passt.path.clone().unwrap_or_else(|| "passt".into());
    let fd = (transport == Transport::Fd).then_some(PASST_FD);
    let pid = dir.join("passt.pid");
    let argv = passt_args::argv(draft, &program, socket.as_deref(), fd, &pid, transport);
    Ok(PasstPlan {
        program,
        argv,
        socket,
        pid,
        log: dir.join("passt.log"),
        fd,
        user: draft.particulars.passt_user,
    })
}

/// Whether the guest's card is one that QEMU is to make.
fn device_args(draft: &Draft, extra: &str) -> Vec<OsString> {
    match &draft.request.device {
        Device::None => Vec::new(),
        Device::Model(model) => {
            let (id, mac) = (&draft.request.id, draft.mac());
            vec!["-device".into(), format!("{model},netdev={id},mac={mac}{extra}").into()]
        }
    }
}

/// A path as a value of a QEMU option: commas are doubled (QEMU's manual, option syntax).
fn option_path(path: &Path) -> OsString {
    use std::os::unix::ffi::OsStringExt;
    let doubled = path
        .as_os_str()
        .as_bytes()
        .iter()
        .flat_map(|byte| std::iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 }));
    OsString::from_vec(doubled.collect())
}
