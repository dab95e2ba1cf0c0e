//! Rules as programs, against a plain reading of the rules.

use oci_spec::runtime::Spec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::compile::{EbpfInstruction, code, compile};
use super::{BLOCK, CHARACTER, EVERYTHING, MKNOD, READ, Rule, Rules, WRITE};

/// What the kernel asks a program.
#[derive(Clone, Copy, Debug)]
struct Access {
    kind: u32,
    access: u32,
    major: u32,
    minor: u32,
}

/// Runs a program as the kernel would.
fn run(program: &[EbpfInstruction], asked: Access) -> u32 {
    let context = [asked.access << 16 | asked.kind, asked.major, asked.minor];
    let mut registers = [0_u32; 6];
    let mut at = 0_usize;
    // Every jump goes forward, so that this ends.
    while let Some(EbpfInstruction { code, registers: pair, offset, immediate }) = program.get(at).copied() {
        let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
        at += 1;
        let mut jump = |when: bool| at += if when { usize::try_from(offset).expect("forward") } else { 0 };
        match code {
            code::LOAD => registers[to] = context[usize::try_from(offset).expect("inside") / 4],
            code::MOVE => registers[to] = immediate as u32,
            code::MOVE_REGISTER => registers[to] = registers[from],
            code::AND => registers[to] &= immediate as u32,
            code::SHIFT_RIGHT => registers[to] >>= immediate,
            code::JUMP_EQUAL => jump(registers[to] == immediate as u32),
            code::JUMP_NOT_EQUAL => jump(registers[to] != immediate as u32),
            code::EXIT => return registers[0],
            other => panic!("{other:#x} is no code of ours"),
        }
    }
    panic!("past the program's end")
}

/// Each kind of access by itself: the last rule that fits decides.
fn allows(rules: &Rules, asked: Access) -> bool {
    let fits = |wanted: Option<u32>, value: u32| wanted.is_none_or(|wanted| wanted == value);
    [MKNOD, READ, WRITE].into_iter().filter(|bit| asked.access & bit != 0).all(|bit| {
        let last = rules.list.iter().rev().find(|rule| {
            rule.access & bit != 0
                && fits(rule.kind, asked.kind)
                && fits(rule.major, asked.major)
                && fits(rule.minor, asked.minor)
        });
        last.map_or(rules.allow, |rule| rule.allow)
    })
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let number = || prop::option::of(prop::sample::select(vec![0, 1, 7, u32::MAX]));
    (any::<bool>(), prop::option::of(1..=2_u32), number(), number(), 0..=EVERYTHING)
        .prop_map(|(allow, kind, major, minor, access)| Rule { allow, kind, major, minor, access })
}

proptest! {
    #[test]
    fn a_program_says_what_its_rules_say(
        allow in any::<bool>(),
        list in prop::collection::vec(any_rule(), 0..8),
        kind in 1..=2_u32,
        major in prop::sample::select(vec![0, 1, 2, 7, u32::MAX]),
        minor in prop::sample::select(vec![0, 1, 2, 7, u32::MAX]),
    ) {
        let rules = Rules { allow, list };
        let program = compile(&rules);
        for access in 1..=EVERYTHING {
            let asked = Access { kind, access, major, minor };
            prop_assert_eq!(run(&program, asked) == 1, allows(&rules, asked), "{:?}", asked);
        }
    }
}

fn of(change: impl FnOnce(&mut Value)) -> super::Result<Rules> {
    let mut spec = json!({"ociVersion": "1.2.0", "linux": {"resources": {}}});
    change(&mut spec);
    let spec: Spec = serde_json::from_value(spec).expect("a spec");
    Rules::of(&spec)
}

#[test]
fn the_default_list_has_nodes_made_and_no_disk_opened() {
    let program = compile(&of(|_| {}).expect("valid"));
    assert_eq!(program, compile(&Rules::defaults()));
    let ask = |kind, access, major, minor| run(&program, Access { kind, access, major, minor }) == 1;
    assert!(ask(CHARACTER, READ | WRITE, 1, 3) && ask(CHARACTER, READ, 136, 5) && ask(BLOCK, MKNOD, 7, 0));
    for access in [READ, WRITE, READ | WRITE, MKNOD | READ] {
        assert!(
            !ask(BLOCK, access, 7, 0) && !ask(CHARACTER, access, 1, 1) && !ask(CHARACTER, access, 10, 200)
        );
    }
}

#[test]
fn a_spec_adds_devices_and_may_allow_them_all() {
    let tun = of(|spec| {
        spec["linux"]["devices"] = json!([{"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200}]);
        spec["linux"]["resources"]["devices"] = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "b", "major": 7, "access": "r"}]);
    });
    let program = compile(&tun.expect("valid"));
    let ask = |kind, access, major, minor| run(&program, Access { kind, access, major, minor }) == 1;
    assert!(ask(CHARACTER, EVERYTHING, 10, 200) && ask(BLOCK, READ, 7, 9) && ask(CHARACTER, WRITE, 1, 3));
    assert!(!ask(BLOCK, WRITE, 7, 9) && !ask(BLOCK, READ, 8, 9));
    let all = of(|spec| {
        spec["linux"]["resources"]["devices"] =
            json!([{"allow": true, "type": "a", "major": -1, "access": "rwm"}]);
    });
    let all = all.expect("valid");
    assert!(all.is_open());
    assert_eq!(compile(&all).len(), 2);
}

#[test]
fn rules_without_a_meaning_are_refused() {
    for (rule, words) in [
        (json!({"allow": true, "type": "p"}), "`p` is not a type"),
        (json!({"allow": true, "access": "rx"}), "access 'x'"),
        (json!({"allow": true, "major": -2}), "major -2 is out of range"),
        (json!({"allow": true, "minor": 1_i64 << 40}), "is out of range"),
    ] {
        let error = of(|spec| spec["linux"]["resources"]["devices"] = json!([rule])).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
    }
    let many: Vec<Value> = (0..1020).map(|minor| json!({"allow": true, "minor": minor})).collect();
    let error = of(|spec| spec["linux"]["resources"]["devices"] = json!(many)).expect_err("too many");
    assert!(error.to_string().contains("more than 1024 rules"), "{error}");
}
