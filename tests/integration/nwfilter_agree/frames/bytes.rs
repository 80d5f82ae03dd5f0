//! The bytes of a frame.

use super::*;

impl Spec {
    /// Returns the bytes, with a number that identifies the frame.
    pub fn bytes(&self, number: usize) -> Vec<u8> {
        let mark = [MARK.as_slice(), &(number as u32).to_be_bytes()].concat();
        let mut frame = [self.destination, self.source].concat();
        if let Some(vlan) = self.vlan {
            frame.extend(0x8100u16.to_be_bytes());
            frame.extend(vlan.to_be_bytes());
        }
        frame.extend(self.ether_type.to_be_bytes());
        match self.ether_type {
            0x0806 | 0x8035 => frame.extend(self.arp(&mark)),
            0x0800 => frame.extend(self.packet_v4(&mark)),
            0x86dd => frame.extend(self.packet_v6(&mark)),
            _ => frame.extend([&[0; 4], mark.as_slice(), &[0; 40]].concat()),
        }
        frame
    }

    fn arp(&self, mark: &[u8]) -> Vec<u8> {
        let Arp { hardware, protocol, operation, macs, addresses } = &self.arp;
        let mut bytes = [hardware.to_be_bytes(), protocol.to_be_bytes(), [6, 4]].concat();
        bytes.extend(operation.to_be_bytes());
        for side in [0, 1] {
            bytes.extend(macs[side]);
            bytes.extend(addresses[side].octets());
        }
        [bytes, vec![0; 8], mark.to_vec()].concat()
    }

    fn transport(&self, mark: &[u8]) -> Vec<u8> {
        let data = [mark, &[0; 16]].concat();
        let ports = [self.ports[0].to_be_bytes(), self.ports[1].to_be_bytes()].concat();
        let head = match self.protocol {
            6 => {
                let acknowledged = if self.flags & 0x10 == 0 { 0u32 } else { 1001 };
                let numbers = [1000u32.to_be_bytes(), acknowledged.to_be_bytes()].concat();
                [numbers, vec![0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]].concat()
            }
            17 => [(8 + data.len() as u16).to_be_bytes(), [0; 2]].concat(),
            // UDP-Lite requires a checksum (RFC 3828, 3.1).
            136 => vec![0, 0, 0xff, 0xff],
            // An INIT chunk with its required fields.
            132 => [
                &[0; 8],
                [1, 0, 0, 44].as_slice(),
                &[0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1],
            ]
            .concat(),
            1 | 58 => {
                return [&[self.icmp.0, self.icmp.1, 0, 0, 0, 1, 0, 1], data.as_slice()].concat();
            }
            33 => vec![0; 12],
            _ => return [&[0; 8], data.as_slice()].concat(),
        };
        [ports, head, data].concat()
    }

    fn packet_v4(&self, mark: &[u8]) -> Vec<u8> {
        let fragment: u16 = match self.part {
            Part::Whole => 0,
            Part::First => 0x2000,
            Part::Later => 100,
        };
        let mut payload = self.transport(mark);
        // All fragments except the last have a multiple of eight bytes (RFC 791).
        payload.resize(payload.len().next_multiple_of(8), 0);
        let options: &[u8] = if self.options { &[1, 1, 1, 0] } else { &[] };
        let length = 20 + options.len();
        let mut head = vec![0x40 | (length / 4) as u8, self.dscp << 2 | 1];
        head.extend(((length + payload.len()) as u16).to_be_bytes());
        head.extend(7u16.to_be_bytes());
        head.extend(fragment.to_be_bytes());
        head.extend([64, self.protocol, 0, 0]);
        self.v4.iter().for_each(|address| head.extend(address.octets()));
        head.extend(options);
        let sum: u32 =
            head.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let once = (sum & 0xffff) + (sum >> 16);
        let folded = (once + (once >> 16)) as u16;
        head[10..12].copy_from_slice(&(!folded).to_be_bytes());
        [head, payload].concat()
    }

    fn packet_v6(&self, mark: &[u8]) -> Vec<u8> {
        let mut payload = self.transport(mark);
        payload.resize(payload.len().next_multiple_of(8), 0);
        let mut next = self.protocol;
        if self.part != Part::Whole {
            let offset: u16 = if self.part == Part::First { 1 } else { 800 };
            let head = [[next, 0], offset.to_be_bytes(), [0, 0], [0, 7]].concat();
            (payload, next) = ([head, payload].concat(), 44);
        }
        if self.options {
            let head = [next, 0, 1, 4, 0, 0, 0, 0];
            (payload, next) = ([head.as_slice(), &payload].concat(), 0);
        }
        let class = u32::from(self.dscp << 2 | 1);
        let mut head = (6 << 28 | class << 20).to_be_bytes().to_vec();
        head.extend((payload.len() as u16).to_be_bytes());
        head.extend([next, 64]);
        self.v6.iter().for_each(|address| head.extend(address.octets()));
        [head, payload].concat()
    }
}
