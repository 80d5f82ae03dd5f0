//! The kernel's machine for classic BPF programs, as far as netlaunch uses it (filter.txt in the
//! kernel's documentation).

use netlaunch::nwfilter::learn::bpf::Instruction;

/// Returns the answer of a program about a frame: how many bytes of it are taken. `outgoing` is a
/// frame that leaves the host by the port, `tagged` one whose VLAN tag the kernel has taken out.
///
/// # Panics
/// On what the kernel would refuse: a jump out of the program, an unknown instruction.
pub fn run(program: &[Instruction], outgoing: bool, tagged: bool, frame: &[u8]) -> u32 {
    let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
    let number = |at: u32, size: usize| -> Option<u32> {
        let bytes = frame.get(at as usize..at as usize + size)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    };
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let loaded = match u32::from(code) {
            // ld and ldx: words, half words and bytes; absolute, relative to X; 4 * (byte & 15).
            0x20 if k == 0xffff_f004 => Some(if outgoing { 4 } else { 0 }),
            0x20 if k == 0xffff_f030 => Some(tagged.into()),
            0x20 => number(k, 4),
            0x28 => number(k, 2),
            0x30 => number(k, 1),
            0x40 => number(x + k, 4),
            0x48 => number(x + k, 2),
            0x50 => number(x + k, 1),
            0xb1 => {
                let Some(byte) = number(k, 1) else { return 0 };
                x = (byte & 15) * 4;
                Some(a)
            }
            0x06 => return k,
            jump @ (0x15 | 0x35 | 0x45) => {
                let holds = match jump {
                    0x15 => a == k,
                    0x35 => a >= k,
                    _ => a & k != 0,
                };
                at += usize::from(if holds { jt } else { jf });
                Some(a)
            }
            other => panic!("unknown instruction {other:#x}"),
        };
        match loaded {
            Some(value) => a = value,
            None => return 0,
        }
    }
}
