//! The settings that each error of a request names. The command line adds their options.

use super::error::about_addresses;
use super::request_error::RequestError;
use crate::types::Setting;

impl RequestError {
    /// Returns the settings of the launch that the error names.
    pub fn settings(&self) -> Vec<Setting> {
        match self {
            RequestError::Overlap { .. } => vec![Setting::Publish],
            RequestError::FamilyPublish { restriction, .. } => {
                vec![Setting::Publish, *restriction]
            }
            RequestError::FamilyAddress(setting) => vec![*setting, Setting::Ipv6Only],
            RequestError::FamilyDns(_) => vec![Setting::Dns, Setting::Ipv4Only],
            RequestError::HostGateway => vec![Setting::Gateway, Setting::Address],
            RequestError::GuestAddresses(error) => about_addresses(error),
            RequestError::Dns(_) => vec![Setting::Dns],
            RequestError::Mtu { .. } => vec![Setting::Mtu],
            RequestError::IdTaken(_) | RequestError::PartTaken { .. } => vec![Setting::Id],
            RequestError::CardTaken { .. } => vec![Setting::Device, Setting::Id],
            RequestError::SingleWithList(setting) => vec![*setting, Setting::Nics],
            RequestError::CardKept { setting, .. } | RequestError::LeftSetting { setting, .. } => {
                vec![*setting, Setting::KeepNics]
            }
            RequestError::CardMtu { .. } | RequestError::SharedMtu { .. } => vec![Setting::Mtu],
            RequestError::PasstWithList(setting) | RequestError::UserModeWithList(setting) => {
                vec![*setting, Setting::Nics]
            }
            RequestError::SameId(_)
            | RequestError::SameMac(_)
            | RequestError::SameSubnet { .. }
            | RequestError::NoNic => vec![Setting::Nics],
            RequestError::OwnNetwork(_) => vec![Setting::HostLoopback],
            RequestError::NoBridgeNamed => vec![Setting::Network, Setting::Bridge],
            RequestError::BackendNotBridge { attachment, .. } => {
                vec![*attachment, Setting::Backend]
            }
            RequestError::FilterNeedsBridge => {
                vec![Setting::Network, Setting::Bridge, Setting::Filter]
            }
            RequestError::GroupNeedsNetwork(_) => vec![Setting::Network],
            RequestError::BandwidthNeedsBridge => {
                vec![Setting::Network, Setting::Bridge, Setting::Bandwidth]
            }
            RequestError::Bandwidth(_) => vec![Setting::Bandwidth],
            RequestError::NotOnBridge(setting) => vec![*setting],
            RequestError::PublishWithoutNetwork { .. } => vec![Setting::Publish, Setting::Bridge],
            RequestError::QueuesOfUserMode(_) => vec![Setting::Queues, Setting::Bridge],
            RequestError::QueuesOfCard { .. } => vec![Setting::Queues, Setting::Device],
            RequestError::QueuesCaptured(_) => vec![Setting::Queues, Setting::Pcap],
            RequestError::PasstOption { instead, .. } => {
                std::iter::once(Setting::PasstOption).chain(*instead).collect()
            }
            RequestError::VhostUserHub(_) => vec![Setting::Transport],
            RequestError::VmmCommand(_) => vec![Setting::Vmm, Setting::Command],
            RequestError::VmmBackend { .. } => vec![Setting::Vmm, Setting::Backend],
            RequestError::VmmTransport { .. } => vec![Setting::Vmm, Setting::Transport],
            RequestError::VmmCapture(_) => vec![Setting::Vmm, Setting::Pcap],
            RequestError::ListenPath { .. } => vec![Setting::Listen],
            RequestError::VmmPath { setting, .. } => vec![Setting::Vmm, *setting],
            RequestError::TwoSockets => vec![Setting::Listen, Setting::ListenFd],
            RequestError::SocketCommand(setting) => vec![*setting, Setting::Command],
            RequestError::SocketOfSeveral(setting) => vec![*setting],
            RequestError::SocketBackend(setting) => vec![*setting, Setting::Backend],
            RequestError::SocketTransport(setting) => vec![*setting, Setting::Transport],
            RequestError::UserSocket { .. } => vec![Setting::User, Setting::Transport],
            RequestError::ServeUser(_) => vec![Setting::User, Setting::Command],
            RequestError::ServeStopTimeout => vec![Setting::StopTimeout, Setting::Command],
            RequestError::ServeFd => vec![Setting::Command, Setting::Transport],
        }
    }
}
