//! Instructions, laid down from the last to the first.
//!
//! A jump of classic BPF goes forward, at most 255 instructions when it is conditional. Laid down backward, every
//! target is known when the jump to it is written; where it is too far, a plain jump (or the return itself, which is
//! no longer) is put right behind the condition.

use super::arch::{Abi, Arch, Table, X32_BIT};
use super::policy::{Action, Compare, Condition, Policy};
use super::ranges::{self, Alternative, Leaf, Range};
use super::{BpfInstruction, INSTRUCTIONS_MAX, SeccompError};

/// `BPF_LD | BPF_W | BPF_ABS` and so on (linux/bpf_common.h).
pub(super) mod code {
    pub(crate) const LOAD: u16 = 0x20;
    pub(crate) const AND: u16 = 0x54;
    pub(crate) const JUMP: u16 = 0x05;
    pub(crate) const JUMP_EQUAL: u16 = 0x15;
    pub(crate) const JUMP_GREATER: u16 = 0x25;
    pub(crate) const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
    pub(crate) const RETURN: u16 = 0x06;
}

/// Offsets in `struct seccomp_data` (linux/seccomp.h), on little-endian machines.
const DATA_NUMBER: u32 = 0;
const DATA_ARCH: u32 = 4;
const DATA_ARGS: u32 = 16;
/// The farthest conditional jump.
const NEAR_MAX: usize = u8::MAX as usize;

/// An instruction's place, counted from the program's end.
type Label = usize;

/// A program, its last instruction first.
#[derive(Default)]
struct Assembler {
    reversed: Vec<BpfInstruction>,
    /// The latest return of each action.
    returns: Vec<(Action, Label)>,
}

/// The filter of `policy` on `arch`.
pub(super) fn program(policy: &Policy<'_>, arch: Arch) -> Result<Vec<BpfInstruction>, SeccompError> {
    let table = Table::read();
    let mut listed: Vec<Abi> =
        policy.architectures.iter().filter_map(|listed| Abi::from_oci(*listed, arch)).collect();
    listed.push(arch.native());
    let mut assembler = Assembler::default();
    let mut otherwise = assembler.ret(Action::KILL_PROCESS);
    // The machine's own is tested first, so it is laid down last.
    for abi in [Abi::Arm, Abi::X86, Abi::Aarch64, Abi::X86_64] {
        if !abi.runs_on(arch) || !listed.contains(&abi) {
            continue;
        }
        let mut ranges = ranges::of(policy, &table, abi, 0)?;
        if abi == Abi::X86_64 {
            ranges.retain(|range| range.start < X32_BIT);
            if listed.contains(&Abi::X32) {
                ranges.extend(ranges::of(policy, &table, Abi::X32, X32_BIT)?);
            } else {
                ranges.push(Range { start: X32_BIT, leaf: Leaf::Return(Action::ENOSYS) });
            }
        }
        let tree = assembler.tree(&ranges, policy.default);
        let tree = assembler.load(DATA_NUMBER, tree);
        otherwise = assembler.branch(code::JUMP_EQUAL, abi.audit(), tree, otherwise);
    }
    assembler.load(DATA_ARCH, otherwise);
    let Assembler { mut reversed, .. } = assembler;
    if reversed.len() > INSTRUCTIONS_MAX {
        return Err(SeccompError::TooLong { instructions: reversed.len() });
    }
    reversed.reverse();
    Ok(reversed)
}

impl Assembler {
    fn emit(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(BpfInstruction { code, jt, jf, k });
        self.reversed.len() - 1
    }

    /// A place that returns `action`, near if there is one.
    fn ret(&mut self, action: Action) -> Label {
        /// Leaves room for what a branch puts between itself and its targets.
        const REACH: usize = NEAR_MAX - 2;
        let length = self.reversed.len();
        let known = self.returns.iter_mut().find(|(known, _)| *known == action);
        match known {
            Some((_, label)) if length - *label <= REACH => *label,
            Some((_, label)) => {
                *label = length;
                self.emit(code::RETURN, 0, 0, action.0)
            }
            None => {
                self.returns.push((action, length));
                self.emit(code::RETURN, 0, 0, action.0)
            }
        }
    }

    /// `target`, or a stepping stone to it that is near enough to a branch laid down after `more` instructions.
    fn near(&mut self, target: Label, more: usize) -> Label {
        let distance = self.reversed.len() + more - target - 1;
        if distance <= NEAR_MAX {
            return target;
        }
        let there = self.reversed[target];
        if there.code == code::RETURN {
            return self.emit(code::RETURN, 0, 0, there.k);
        }
        let distance = self.reversed.len() - target - 1;
        self.emit(code::JUMP, 0, 0, distance as u32)
    }

    fn branch(&mut self, code: u16, k: u32, when_true: Label, when_false: Label) -> Label {
        if when_true == when_false {
            return when_true;
        }
        let when_true = self.near(when_true, 1);
        let when_false = self.near(when_false, 0);
        let here = self.reversed.len();
        self.emit(code, (here - when_true - 1) as u8, (here - when_false - 1) as u8, k)
    }

    /// An unconditional step before `next`, which lies anywhere.
    fn before(&mut self, next: Label, code: u16, k: u32) -> Label {
        let distance = self.reversed.len() - next - 1;
        if distance > 0 {
            self.emit(code::JUMP, 0, 0, distance as u32);
        }
        self.emit(code, 0, 0, k)
    }

    fn load(&mut self, offset: u32, next: Label) -> Label {
        self.before(next, code::LOAD, offset)
    }

    /// Binary search for the range that the number in the accumulator lies in.
    fn tree(&mut self, ranges: &[Range], default: Action) -> Label {
        match ranges {
            [] => self.ret(default),
            [Range { leaf: Leaf::Return(action), .. }] => self.ret(*action),
            [Range { leaf: Leaf::Arguments(alternatives), .. }] => self.arguments(alternatives, default),
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let when_high = self.tree(high, default);
                let when_low = self.tree(low, default);
                self.branch(code::JUMP_GREATER_OR_EQUAL, high[0].start, when_high, when_low)
            }
        }
    }

    fn arguments(&mut self, alternatives: &[Alternative], default: Action) -> Label {
        let mut next = self.ret(default);
        for alternative in alternatives.iter().rev() {
            let mut matched = self.ret(alternative.action);
            for condition in alternative.conditions.iter().rev() {
                matched = self.condition(*condition, matched, next);
            }
            next = matched;
        }
        next
    }

    /// One comparison of 64 bits, by halves; of 32 bits where an argument has no more.
    fn condition(&mut self, condition: Condition, yes: Label, no: Label) -> Label {
        let Condition { index, compare, value, is_wide } = condition;
        let low_at = DATA_ARGS + 8 * index;
        let (high, low) = ((value >> 32) as u32, value as u32);
        let (order, yes, no) = match compare {
            Compare::Equal => {
                return self.equal(low_at, is_wide.then_some(u32::MAX), u32::MAX, value, yes, no);
            }
            Compare::NotEqual => {
                return self.equal(low_at, is_wide.then_some(u32::MAX), u32::MAX, value, no, yes);
            }
            Compare::Masked(mask) => {
                let mask_high = Some((mask >> 32) as u32).filter(|mask| *mask != 0);
                return self.equal(low_at, mask_high, mask as u32, value, yes, no);
            }
            Compare::GreaterOrEqual => (code::JUMP_GREATER_OR_EQUAL, yes, no),
            Compare::Greater => (code::JUMP_GREATER, yes, no),
            // Not (>=) and not (>): the answers change places.
            Compare::Less => (code::JUMP_GREATER_OR_EQUAL, no, yes),
            Compare::LessOrEqual => (code::JUMP_GREATER, no, yes),
        };
        let halves = self.branch(order, low, yes, no);
        let halves = self.load(low_at, halves);
        if !is_wide {
            return halves;
        }
        let not_above = self.branch(code::JUMP_EQUAL, high, halves, no);
        let halves = self.branch(code::JUMP_GREATER, high, yes, not_above);
        self.load(low_at + 4, halves)
    }

    /// Whether the bits under both masks equal those of `value`; without a high mask the high half is not looked at.
    fn equal(
        &mut self,
        low_at: u32,
        high_mask: Option<u32>,
        low_mask: u32,
        value: u64,
        yes: Label,
        no: Label,
    ) -> Label {
        let mut next = yes;
        let halves = [(low_at, Some(low_mask), value as u32), (low_at + 4, high_mask, (value >> 32) as u32)];
        for (at, mask, half) in halves {
            let Some(mask) = mask.filter(|mask| *mask != 0) else { continue };
            next = self.branch(code::JUMP_EQUAL, half, next, no);
            if mask != u32::MAX {
                next = self.before(next, code::AND, mask);
            }
            next = self.load(at, next);
        }
        next
    }
}
