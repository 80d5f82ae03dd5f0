//! Values with a grammar, such as addresses, ports and names.
//!
//! Each type holds only valid values, and its error says in one line what is wrong with a text.
//!
//! This module runs no program, opens no file and asks the kernel nothing, so every other module
//! may use it.

mod address;
mod bandwidth;
pub(crate) mod checked_text;
mod device;
mod error_text;
pub mod facts;
mod fnv;
mod free_port;
mod guest_addresses;
mod id;
mod mac;
#[cfg(feature = "bridged")]
mod mac_prefix;
mod names;
pub mod os_text;
mod passt_option;
#[cfg(feature = "bridged")]
mod port_pattern;
mod port_settings;
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the command line uses all of it"))]
pub(crate) mod printable;
mod publish;
mod publish_error;
mod queues;
mod resolv_conf;
mod setting;
mod shell_words;
mod tap_name;
mod text;
mod transient_user;
mod uuid;
mod vlan;

pub use address::{AddressError, HostAddress};
pub use bandwidth::{Bandwidth, BandwidthError, Rate};
pub use device::{Device, DeviceError};
pub use error_text::error_text;
pub(crate) use fnv::fnv1a;
pub use free_port::{FreePort, PublishRequest};
pub use guest_addresses::{DEFAULT_SUBNETS, GuestAddresses, GuestAddressesError};
pub use id::{Id, IdError};
pub use mac::{EthernetAddress, Mac, MacError};
#[cfg(feature = "bridged")]
pub use mac_prefix::{MacPrefix, MacPrefixError};
pub use names::{
    FilterName, NameError, NetworkChoice, NetworkName, Parameter, PortGroupName, VariableName,
    VariableValue,
};
pub use passt_option::{PasstOption, PasstOptionError};
#[cfg(feature = "cli")]
pub(crate) use port_pattern::is_plain;
#[cfg(feature = "bridged")]
pub use port_pattern::{PortPattern, PortPatternError};
pub use port_settings::PortSettings;
pub use publish::{PortRange, Protocol, Publish, overlap};
pub use publish_error::PublishTextError;
pub use queues::{Queues, QueuesError};
pub use resolv_conf::name_servers;
pub use setting::Setting;
pub use shell_words::{quote, shell_line, split_words};
pub use tap_name::tap_name;
pub use text::{DnsName, DomainName, HostName, InterfaceName, LaunchName, TextError, UserName};
pub use transient_user::TransientUser;
pub use uuid::{Uuid, UuidError};
pub use vlan::{Native, Vlan, VlanError, VlanId, VlanIdError, VlanRun};
