//! The options of `netlaunch probe`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

/// The options of `netlaunch probe`.
#[derive(Debug, Clone, Default, Args)]
pub struct ProbeArgs {
    /// Prints one JSON object
    #[arg(long)]
    pub json: bool,
    /// Exits with 1 and prints the missing ones if the host lacks one of these; repeatable
    #[arg(long, value_name = "ABILITY", value_delimiter = ',', hide_possible_values = true)]
    pub require: Vec<Ability>,
    /// Probes this QEMU [default: qemu-system-ARCH in PATH]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    pub qemu: Option<PathBuf>,
    /// Probes this passt [default: passt in PATH]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    pub passt: Option<PathBuf>,
}

/// An ability of the host that `--require` can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ability {
    /// The backend passt.
    Passt,
    /// The backend slirp.
    Slirp,
    /// A tap on a bridge of the host.
    Bridge,
    /// The QEMU program.
    Qemu,
    /// A virtual processor of KVM.
    Kvm,
    /// vhost-net for taps.
    VhostNet,
    /// Pings of a guest with a user-mode network.
    Ping,
    /// The server of DHCP and DNS for networks.
    Dnsmasq,
    /// A firewall backend, whichever works.
    Firewall,
    /// The firewall backend nftables.
    Nftables,
    /// The firewall backend iptables.
    Iptables,
}

impl Ability {
    /// Returns the word of the command line.
    pub fn name(self) -> &'static str {
        match self {
            Ability::Passt => "passt",
            Ability::Slirp => "slirp",
            Ability::Bridge => "bridge",
            Ability::Qemu => "qemu",
            Ability::Kvm => "kvm",
            Ability::VhostNet => "vhost-net",
            Ability::Ping => "ping",
            Ability::Dnsmasq => "dnsmasq",
            Ability::Firewall => "firewall",
            Ability::Nftables => "nftables",
            Ability::Iptables => "iptables",
        }
    }
}
