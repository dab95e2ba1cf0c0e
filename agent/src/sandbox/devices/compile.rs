//! Rules to eBPF, for `BPF_PROG_TYPE_CGROUP_DEVICE` (linux/bpf.h).
//!
//! ```text
//! r2 = type, r3 = access still to be decided, r4 = major, r5 = minor
//! for each rule, the last first:   does it fit?  no: next rule
//!     allow: take its bits out of r3; nothing left: return 1
//!     deny:  one of its bits in r3: return 0
//! return what holds where no rule fits
//! ```

use super::{EVERYTHING, Rule, Rules};

/// One instruction of eBPF (`struct bpf_insn`, linux/bpf.h), in the layout the kernel takes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EbpfInstruction {
    pub(super) code: u8,
    /// The destination in the low four bits, the source in the high four.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

/// `BPF_LDX | BPF_MEM | BPF_W` and so on (linux/bpf_common.h, linux/bpf.h); operations and comparisons of 32 bits.
pub(super) mod code {
    pub(crate) const LOAD: u8 = 0x61;
    pub(crate) const MOVE: u8 = 0xb4;
    pub(crate) const MOVE_REGISTER: u8 = 0xbc;
    pub(crate) const AND: u8 = 0x54;
    pub(crate) const SHIFT_RIGHT: u8 = 0x74;
    pub(crate) const JUMP_EQUAL: u8 = 0x16;
    pub(crate) const JUMP_NOT_EQUAL: u8 = 0x56;
    pub(crate) const EXIT: u8 = 0x95;
}

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
/// Bits of the context's first word that are the type; the access is above them.
const KIND_MASK: i32 = 0xffff;
const ACCESS_SHIFT: i32 = 16;

/// The program that answers 1 for what `rules` allow and 0 for the rest.
pub(crate) fn compile(rules: &Rules) -> Vec<EbpfInstruction> {
    let mut program = Vec::with_capacity(8 + rules.list.len() * 8);
    if !rules.is_open() {
        program.push(word(code::LOAD, KIND, CONTEXT, 0, 0));
        program.push(word(code::MOVE_REGISTER, ACCESS, KIND, 0, 0));
        program.push(word(code::AND, KIND, 0, 0, KIND_MASK));
        program.push(word(code::SHIFT_RIGHT, ACCESS, 0, 0, ACCESS_SHIFT));
        program.push(word(code::LOAD, MAJOR, CONTEXT, 4, 0));
        program.push(word(code::LOAD, MINOR, CONTEXT, 8, 0));
    }
    for rule in rules.list.iter().rev() {
        one(&mut program, rule);
    }
    answer(&mut program, rules.allow);
    program
}

fn word(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> EbpfInstruction {
    EbpfInstruction { code, registers: from << 4 | to, offset, immediate }
}

fn answer(program: &mut Vec<EbpfInstruction>, allow: bool) {
    program.push(word(code::MOVE, RESULT, 0, 0, i32::from(allow)));
    program.push(word(code::EXIT, 0, 0, 0, 0));
}

fn one(program: &mut Vec<EbpfInstruction>, rule: &Rule) {
    let mut body = Vec::with_capacity(4);
    if rule.allow {
        body.push(word(code::AND, ACCESS, 0, 0, (EVERYTHING & !rule.access) as i32));
        body.push(word(code::JUMP_NOT_EQUAL, ACCESS, 0, 2, 0));
        answer(&mut body, true);
    } else {
        body.push(word(code::MOVE_REGISTER, CONTEXT, ACCESS, 0, 0));
        body.push(word(code::AND, CONTEXT, 0, 0, rule.access as i32));
        body.push(word(code::JUMP_EQUAL, CONTEXT, 0, 2, 0));
        answer(&mut body, false);
    }
    let tests = [(KIND, rule.kind), (MAJOR, rule.major), (MINOR, rule.minor)];
    let tests: Vec<(u8, u32)> =
        tests.into_iter().filter_map(|(register, value)| Some((register, value?))).collect();
    for (index, (register, value)) in tests.iter().enumerate() {
        let skip = tests.len() - index - 1 + body.len();
        program.push(word(code::JUMP_NOT_EQUAL, *register, 0, skip as i16, *value as i32));
    }
    program.append(&mut body);
}
