//! Builds a [`Launcher`].

use std::error::Error;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::blocking::BlockingLaunch;
use super::entry::Launcher;
use super::environment::LaunchEnvironment;
use super::error::LaunchError;
use super::launch::Launch;
use super::launcher_settings::LauncherSettings;
use super::plan::{AddressChoice, Backend, Command, Family, NicRequest, Request, Transport};
use super::value_check::check_request;
use crate::types::{
    Device, DomainName, Id, InterfaceName, LaunchName, Mac, PublishRequest, UserName,
};

/// Builds a [`Launcher`]. Values can be texts, as on netlaunch's command line, or typed; a text
/// that is not valid makes [`build`](Self::build) fail.
///
/// ```
/// use netlaunch::launcher::Launcher;
/// use netlaunch::launcher::plan::Backend;
///
/// let launcher = Launcher::builder()
///     .qemu("qemu-system-x86_64", ["-m", "512"])
///     .publish("127.0.0.1:8080:80")
///     .backend(Backend::Slirp)
///     .address("192.168.7.2/24")
///     .name("appliance")
///     .build()?;
/// # let _ = launcher;
/// # Ok::<(), netlaunch::launcher::LaunchError>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder starts nothing"]
pub struct LauncherBuilder {
    request: Request,
    environment: LaunchEnvironment,
    settings: LauncherSettings,
    /// The first value that is not valid.
    error: Option<LaunchError>,
}

/// An error of a conversion to a value.
type ValueError = Box<dyn Error + Send + Sync>;

impl LauncherBuilder {
    pub(super) fn new() -> Self {
        LauncherBuilder {
            request: Request::default(),
            environment: LaunchEnvironment::empty(),
            settings: LauncherSettings::default(),
            error: None,
        }
    }

    /// Sets QEMU's program, a path or a name to look up in PATH, and its arguments. Without it the
    /// launch is in serve mode: the caller starts QEMU.
    ///
    /// QEMU inherits the standard streams, the working directory, the signal mask of the thread
    /// that launches, and each descriptor that is not close-on-exec, such as one that its arguments
    /// name. Rust opens files and sockets close-on-exec.
    pub fn qemu<A>(
        mut self,
        program: impl Into<OsString>,
        args: impl IntoIterator<Item = A>,
    ) -> Self
    where
        A: Into<OsString>,
    {
        let args = args.into_iter().map(Into::into).collect();
        self.request.command = Some(Command { program: program.into(), args });
        self
    }

    /// Publishes ports of the host, such as `"2222:22"` or `"[::1]:5353:53/udp"`; can be called
    /// several times. With the host's port 0, as in `"0:22"`, netlaunch finds a free one, which
    /// [`LaunchInfo::published`](super::LaunchInfo::published) has.
    pub fn publish<T>(mut self, ports: T) -> Self
    where
        T: TryInto<PublishRequest, Error: Into<ValueError>>,
    {
        if let Some(ports) = self.value("published port", ports) {
            self.request.nic.publish(ports);
        }
        self
    }

    /// Uses this backend and no other. The default is passt, and slirp where passt cannot serve.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.request.nic.backend = Some(backend);
        self
    }

    /// Connects QEMU and passt this way and no other. The default is a UNIX socket.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.request.nic.transport = Some(transport);
        self
    }

    /// Sets the guest's IPv4 address, such as `"192.168.7.2/24"`, or `"host"` for that of the host.
    pub fn address<T>(mut self, address: T) -> Self
    where
        T: TryInto<AddressChoice, Error: Into<ValueError>>,
    {
        if let Some(address) = self.value("address", address) {
            self.request.nic.address = address;
        }
        self
    }

    /// Sets the guest's router. The default is the second address of the guest's subnet.
    pub fn gateway(mut self, gateway: Ipv4Addr) -> Self {
        self.request.nic.gateway = Some(gateway);
        self
    }

    /// Sets the guest's DNS server. An address of the guest's subnet forwards to the resolvers of
    /// the host.
    pub fn dns(mut self, server: IpAddr) -> Self {
        self.request.nic.dns = Some(server);
        self
    }

    /// Adds a DNS search domain.
    pub fn search<T>(mut self, domain: T) -> Self
    where
        T: TryInto<DomainName, Error: Into<ValueError>>,
    {
        if let Some(domain) = self.value("search domain", domain) {
            self.request.nic.search.push(domain);
        }
        self
    }

    /// Sets the guest's name in DHCP.
    pub fn hostname<T>(mut self, name: T) -> Self
    where
        T: TryInto<DomainName, Error: Into<ValueError>>,
    {
        self.request.nic.hostname = self.value("host name", name).or(self.request.nic.hostname);
        self
    }

    /// Sets the hardware address of the guest's card. The default is a random one.
    pub fn mac<T>(mut self, mac: T) -> Self
    where
        T: TryInto<Mac, Error: Into<ValueError>>,
    {
        self.request.nic.mac = self.value("MAC address", mac).or(self.request.nic.mac);
        self
    }

    /// Sets the model of the guest's card, such as `"e1000"`, or `"none"` for no card. The default
    /// is virtio-net-pci, or on a machine without PCI a card for one of its buses.
    pub fn device<T>(mut self, device: T) -> Self
    where
        T: TryInto<Device, Error: Into<ValueError>>,
    {
        if let Some(device) = self.value("card", device) {
            self.request.nic.device = device;
            self.request.nic.device_named = true;
        }
        self
    }

    /// Sets `id=` of QEMU's netdev. The default is the first free one of `net0`, `net1`, ...
    pub fn id<T>(mut self, id: T) -> Self
    where
        T: TryInto<Id, Error: Into<ValueError>>,
    {
        if let Some(id) = self.value("netdev id", id) {
            self.request.nic.id = id;
            self.request.nic.id_named = true;
        }
        self
    }

    /// Sets the protocol versions of the guest. The default is IPv4 and IPv6.
    pub fn family(mut self, family: Family) -> Self {
        self.request.nic.family = family;
        self
    }

    /// Sets the largest packet of the guest in bytes, 68 to 65520.
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.request.nic.mtu = Some(mtu);
        self
    }

    /// Sets the host's interface whose addresses and routes passt takes. The default is that of the
    /// default route.
    pub fn interface<T>(mut self, name: T) -> Self
    where
        T: TryInto<InterfaceName, Error: Into<ValueError>>,
    {
        self.request.nic.interface = self.value("interface", name).or(self.request.nic.interface);
        self
    }

    /// Sets whether the guest reaches the host's loopback services at the gateway's address. The
    /// default is yes.
    pub fn host_loopback(mut self, reachable: bool) -> Self {
        self.request.nic.host_loopback = reachable;
        self
    }

    /// Has passt or QEMU write the guest's frames to this file.
    pub fn pcap(mut self, file: impl Into<PathBuf>) -> Self {
        self.request.nic.pcap = Some(file.into());
        self
    }

    /// Adds a NIC, such as `"passt,publish=2222:22"` or `"slirp"`; can be called several times. The
    /// methods above are for a launch with a single NIC. With this one, those that set its card,
    /// its addresses or its ports are refused. So is a NIC on a bridge or a network: only the
    /// program `netlaunch` makes ports of these.
    ///
    /// ```
    /// # use netlaunch::launcher::Launcher;
    /// let launcher = Launcher::builder()
    ///     .qemu("qemu-system-x86_64", ["-m", "512"])
    ///     .nic("passt,publish=2222:22")
    ///     .nic("slirp,mac=52:54:00:12:34:57")
    ///     .build()?;
    /// # let _ = launcher;
    /// # Ok::<(), netlaunch::launcher::LaunchError>(())
    /// ```
    pub fn nic<T>(mut self, nic: T) -> Self
    where
        T: TryInto<NicRequest, Error: Into<ValueError>>,
    {
        if let Some(nic) = self.value("NIC", nic) {
            self.request.nics.push(nic);
        }
        self
    }

    /// Sets whether the user-mode networks in QEMU's arguments stay as they are, and a NIC is added
    /// to them. The default is no: they move to the backend of this launch.
    pub fn keep_nics(mut self, keep: bool) -> Self {
        self.request.keep_nics = keep;
        self
    }

    /// Sets the name of the launch, which `netlaunch ps` shows. The default is that of the launch
    /// directory.
    pub fn name<T>(mut self, name: T) -> Self
    where
        T: TryInto<LaunchName, Error: Into<ValueError>>,
    {
        self.request.name = self.value("launch name", name).or(self.request.name);
        self
    }

    /// Runs QEMU as this user without capabilities; only for root.
    pub fn user<T>(mut self, name: T) -> Self
    where
        T: TryInto<UserName, Error: Into<ValueError>>,
    {
        self.request.user = self.value("user", name).or(self.request.user);
        self
    }

    /// Sets the time that the guest gets to power down when the launch is stopped. The default is
    /// zero: QEMU ends at once, and the guest loses what it has not written to its disks.
    pub fn stop_timeout(mut self, time: Duration) -> Self {
        self.request.stop_timeout = Some(time).filter(|time| !time.is_zero());
        self
    }

    /// Replaces everything that the methods above set. A value that was not valid before still
    /// makes [`build`](Self::build) fail.
    pub fn request(mut self, request: Request) -> Self {
        self.request = request;
        self
    }

    /// Sets passt's program, a path or a name to look up. The default is `passt`.
    pub fn passt(mut self, program: impl Into<OsString>) -> Self {
        self.settings.passt = Some(program.into());
        self
    }

    /// Sets the emulator to probe where QEMU's program is a script that runs it.
    pub fn emulator(mut self, program: impl Into<OsString>) -> Self {
        self.settings.emulator = Some(program.into());
        self
    }

    /// Sets the directory in which launch directories are made, an absolute path. netlaunch makes
    /// it if it is missing, and refuses it if another user can change it. The default is
    /// /run/netlaunch for root, else a directory of the user's own in /tmp.
    pub fn state_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.settings.state_dir = Some(dir.into());
        self
    }

    /// Sets the directory that keeps the answers of probed programs, an absolute path, so that each
    /// program is asked only once. Without it each launch first runs passt and QEMU to ask them.
    pub fn cache_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.settings.cache_dir = Some(dir.into());
        self
    }

    /// Sets a variable in the environment of QEMU and passt, which is empty by default.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.settings.env.push((name.into(), value.into()));
        self
    }

    /// Takes from this process's environment: PATH for looking up programs; the directories of
    /// launches (NETLAUNCH_STATE_DIR, XDG_RUNTIME_DIR, TMPDIR) and of the cache (XDG_CACHE_HOME,
    /// HOME); and all variables but NOTIFY_SOCKET as the environment of QEMU and passt.
    ///
    /// It reads the variables now. A program that changes them in another thread at the same time
    /// must not call it, as with [`std::env::vars_os`].
    pub fn from_env(mut self) -> Self {
        self.environment = LaunchEnvironment::read();
        self.settings.from_env = true;
        self
    }

    /// Checks the request and returns the launcher.
    ///
    /// # Errors
    /// [`LaunchError::Value`] for the first value that is not valid, [`LaunchError::Plan`] for a
    /// request that contradicts itself.
    pub fn build(self) -> Result<Launcher, LaunchError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.settings.check()?;
        check_request(&self.request)?;
        self.request.check()?;
        let LauncherBuilder { request, environment, settings, .. } = self;
        Ok(Launcher { request, environment, settings })
    }

    /// Builds the launcher and calls [`Launcher::launch`].
    ///
    /// # Errors
    /// [`LaunchError`].
    pub async fn launch(self) -> Result<Launch, LaunchError> {
        self.build()?.launch().await
    }

    /// Builds the launcher and calls [`Launcher::launch_blocking`].
    ///
    /// # Errors
    /// [`LaunchError`].
    pub fn launch_blocking(self) -> Result<BlockingLaunch, LaunchError> {
        self.build()?.launch_blocking()
    }

    /// Converts a value, or keeps the error for [`build`](Self::build).
    fn value<T, V>(&mut self, what: &'static str, value: T) -> Option<V>
    where
        T: TryInto<V, Error: Into<ValueError>>,
    {
        match value.try_into() {
            Ok(value) => Some(value),
            Err(error) => {
                let source = error.into();
                self.error.get_or_insert(LaunchError::Value { what, source });
                None
            }
        }
    }
}
