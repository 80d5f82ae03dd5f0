//! Values with a grammar: each type here can only hold something that makes sense, and says in one
//! line what is wrong with text that does not.
//!
//! Nothing in this folder knows a program, a file or a kernel; everything else may use it.

mod address;
pub(crate) mod checked_text;
mod device;
mod id;
mod mac;
mod publish;
mod text;
mod transient_user;
mod uuid;

pub use address::{AddressError, DEFAULT_VIEW, GuestView, GuestViewError, HostAddress};
pub use device::{Device, DeviceError};
pub use id::{Id, IdError};
pub use mac::{EthernetAddress, Mac, MacError};
pub use publish::{PortRange, Protocol, Publish, PublishError, overlap};
pub use text::{DomainName, InterfaceName, LaunchName, TextError, UserName};
pub use transient_user::TransientUser;
pub use uuid::{Uuid, UuidError};
