//! The wheel of deadlines beside a list of them: what has expired comes off it, all of it and nothing else.
#![no_main]

use arbitrary::{Result, Unstructured};
use engine::{Expired, ExpiryWheel, Slot};
use libfuzzer_sys::fuzz_target;

/// How far slots lie from one another: the wheel keeps its links in groups of neighbours, and has several of them here.
const APART: usize = 37;

/// A span of any order of magnitude.
fn span(input: &mut Unstructured<'_>) -> Result<u64> {
    let (bits, rest): (u8, u16) = (input.arbitrary()?, input.arbitrary()?);
    Ok((u64::from(rest) << 48 | 1 << 47) >> (bits % 64))
}

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let mut wheel = ExpiryWheel::default();
    let mut deadlines: Vec<Option<u64>> = vec![None; 256 * APART];
    let mut now = 0_u64;
    let mut steps_done = 0_u32;
    while !input.is_empty() {
        let slot = usize::from(input.arbitrary::<u8>()?) * APART;
        let operation: u8 = input.arbitrary()?;
        let at = Slot::new(u32::try_from(slot).expect("few slots"));
        match operation % 8 {
            0..=3 => {
                if deadlines[slot].take().is_some() {
                    wheel.remove(at);
                } else {
                    // Some have passed when they come.
                    let ahead = span(input)?;
                    let deadline =
                        if operation >= 240 { now.saturating_sub(ahead) } else { now.saturating_add(ahead) };
                    deadlines[slot] = Some(deadline);
                    wheel.insert(at, deadline);
                }
            }
            4 => {
                let bound = deadlines.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
                wheel.trim(bound);
            }
            _ => {
                now = now.saturating_add(span(input)?);
                let mut steps = if operation & 16 == 0 { usize::from(operation) } else { usize::MAX };
                let due = deadlines.iter().flatten().filter(|&&deadline| deadline <= now).count();
                let told =
                    |slot: Slot| deadlines[slot.index()].expect("only those on the wheel are asked about");
                let counted = wheel.count_expired(now, usize::MAX, told);
                assert_eq!(counted, due as u64, "who has expired is counted");
                loop {
                    let told = |slot: Slot| {
                        deadlines[slot.index()].expect("only those on the wheel are asked about")
                    };
                    match wheel.pop_expired(now, &mut steps, told) {
                        Expired::Slot(slot) => {
                            let deadline = deadlines[slot.index()].take().expect("it was on the wheel");
                            assert!(deadline <= now, "it has expired");
                        }
                        Expired::OutOfSteps => break,
                        Expired::Nothing => {
                            let left = deadlines.iter().flatten().min();
                            assert!(left.is_none_or(|&deadline| deadline > now), "nothing else has expired");
                            break;
                        }
                    }
                }
            }
        }
        assert_eq!(wheel.len(), deadlines.iter().flatten().count());
        steps_done += 1;
        if steps_done.is_multiple_of(8) || input.is_empty() {
            wheel.check_invariants(|slot| {
                deadlines[slot.index()].expect("only those on the wheel are asked about")
            });
        }
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    // The input's end is the history's.
    let _: Result<()> = run(&mut Unstructured::new(&data[..data.len().min(1024)]));
});
