//! Rules of other programs, which no command of netlaunch may change.

use super::PortScene;

impl PortScene {
    /// Puts rules of others into every table that netlaunch's rules could come near, none of which
    /// concerns a frame of the tests; the tools' tables are all there then.
    pub fn foreign_rules(&self) {
        for tool in ["iptables", "ip6tables"] {
            for rule in [
                "-N DOCKER-USER",
                "-A FORWARD -j DOCKER-USER",
                "-A FORWARD -p 99 -j DROP",
                "-A INPUT -p tcp --dport 9 -j ACCEPT",
                "-t nat -A POSTROUTING -o eth7 -j MASQUERADE",
            ] {
                self.sh(&format!("{tool} {rule}"));
            }
        }
        for rule in [
            "-t nat -N others -P RETURN",
            "-t nat -A others -p 0x9000 -j DROP",
            "-t nat -A PREROUTING -i eth7 -j others",
            "-t nat -A POSTROUTING -o eth7 -j others",
            "-t nat -A OUTPUT -o eth7 -j others",
            "-A FORWARD -p 0x9000 -j DROP",
        ] {
            self.sh(&format!("ebtables {rule}"));
        }
        self.sh("nft add table bridge others");
        self.sh("nft add chain bridge others c '{ type filter hook prerouting priority 7; }'");
        self.sh("nft add rule bridge others c ether type 0x9000 drop");
    }
}
