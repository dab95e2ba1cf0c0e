//! The rules of one architecture, as ranges of call numbers that share an answer.
//!
//! ```text
//! number   0 ........ 40 | 41        | 42 .... 100 | ...      | 470 ......... 4294967295
//! answer   ALLOW         | by rules  | ALLOW       | EPERM    | ENOSYS
//! ```

use super::SeccompError;
use super::arch::{Abi, Table};
use super::policy::{Action, Compare, Condition, Policy};

/// Conditions, all of which must hold, and the answer then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alternative {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
}

/// What a range of numbers ends in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leaf {
    Return(Action),
    /// The first alternative that holds; else the policy's default.
    Arguments(Vec<Alternative>),
}

/// From `start` to the next range's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u32,
    pub(super) leaf: Leaf,
}

/// The ranges of `abi`, ascending, the first from `from` on, the last to the end of all numbers.
pub(super) fn of(
    policy: &Policy<'_>,
    table: &Table,
    abi: Abi,
    from: u32,
) -> Result<Vec<Range>, SeccompError> {
    let mut calls = numbered(policy, table, abi)?;
    // Stable: the profile's order stays among the rules of one call.
    calls.sort_by_key(|(number, _)| *number);
    let newest = table.newest(abi);
    let above = match policy.default {
        action if action.is_errno() => Action::ENOSYS,
        other => other,
    };
    let mut ranges: Vec<Range> = Vec::with_capacity(calls.len());
    let mut next = from;
    let fill = |ranges: &mut Vec<Range>, next: &mut u32, until: u32| {
        if *next <= newest && *next < until {
            push(ranges, *next, Leaf::Return(policy.default));
            *next = until.min(newest + 1);
        }
        if *next < until {
            push(ranges, *next, Leaf::Return(above));
            *next = until;
        }
    };
    let mut rest = calls.as_mut_slice();
    while let Some((number, _)) = rest.first() {
        let number = *number;
        let count = rest.iter().take_while(|(other, _)| *other == number).count();
        let (group, tail) = rest.split_at_mut(count);
        rest = tail;
        fill(&mut ranges, &mut next, number);
        push(&mut ranges, number, leaf(group, policy.default));
        next = number + 1;
    }
    fill(&mut ranges, &mut next, u32::MAX);
    Ok(ranges)
}

/// Every rule of `policy` for `abi`, by number.
fn numbered(policy: &Policy<'_>, table: &Table, abi: Abi) -> Result<Vec<(u32, Alternative)>, SeccompError> {
    let mut calls = Vec::with_capacity(512);
    for rule in policy.rules.iter().filter(|rule| rule.action != policy.default) {
        let narrow = |condition: &Condition| if abi.is_narrow() { condition.narrowed() } else { *condition };
        let conditions: Vec<Condition> = rule.conditions.iter().map(narrow).collect();
        for name in &rule.names {
            let row = table.row(name);
            if policy.default.lets_through() && row.is_none() {
                let why =
                    "no such system call is known, so it can't be held back; remove the name".to_string();
                let name: String = name.chars().take(40).collect();
                return Err(SeccompError::Invalid { what: format!("syscalls, name {name:?}"), why });
            }
            if let Some(number) = row.and_then(|row| Table::number_in(row, abi)) {
                calls.push((number, Alternative { conditions: conditions.clone(), action: rule.action }));
            }
            // Their arguments lie behind a pointer then, so a rule with conditions can't apply.
            let Some((call, value)) = abi.multiplexed(name).filter(|_| conditions.is_empty()) else {
                continue;
            };
            let Some(number) = table.number(call, abi) else { continue };
            let which = Condition { index: 0, compare: Compare::Equal, value, is_wide: false };
            calls.push((number, Alternative { conditions: vec![which], action: rule.action }));
        }
    }
    Ok(calls)
}

/// What the rules of one call come to.
fn leaf(group: &mut [(u32, Alternative)], default: Action) -> Leaf {
    if let Some((_, alone)) = group.iter().find(|(_, rule)| rule.conditions.is_empty()) {
        return Leaf::Return(alone.action);
    }
    let empty = || Alternative { conditions: Vec::new(), action: default };
    Leaf::Arguments(group.iter_mut().map(|(_, rule)| std::mem::replace(rule, empty())).collect())
}

/// Appends a range, or lets the last one go on when the answer is the same.
fn push(ranges: &mut Vec<Range>, start: u32, leaf: Leaf) {
    if ranges.last().is_none_or(|last| last.leaf != leaf) {
        ranges.push(Range { start, leaf });
    }
}
