//! Runs a filter as the kernel would, and refuses what the kernel's verifier would.

use super::super::BpfInstruction;
use super::super::assembler::code;

/// `struct seccomp_data` (linux/seccomp.h).
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) arch: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 if offset.is_multiple_of(4) => {
                let arg = self.args[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 }
            }
            other => panic!("load at {other}"),
        }
    }
}

/// The filter's answer.
pub(super) fn run(program: &[BpfInstruction], call: &Call) -> u32 {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let BpfInstruction { code, jt, jf, k } = program[at];
        at += 1;
        let holds = match code {
            code::LOAD => {
                accumulator = call.word(k);
                continue;
            }
            code::AND => {
                accumulator &= k;
                continue;
            }
            code::JUMP => {
                at += k as usize;
                continue;
            }
            code::RETURN => return k,
            code::JUMP_EQUAL => accumulator == k,
            code::JUMP_GREATER => accumulator > k,
            code::JUMP_GREATER_OR_EQUAL => accumulator >= k,
            other => panic!("code {other:#x} at {}", at - 1),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}
