#![expect(unsafe_code, reason = "what is handed out is written to, as its owners do")]

use std::ptr::NonNull;
use std::slice;

use super::memory::Zone;

const PAGE_BYTES: usize = 4096;

/// Runs of pages beside what each was filled with.
struct Checked<'a> {
    zone: &'a Zone,
    taken: Vec<(NonNull<u8>, usize, u8)>,
    random: u64,
}

impl<'a> Checked<'a> {
    fn new(zone: &'a Zone) -> Self {
        Self { zone, taken: Vec::new(), random: 0 }
    }

    fn draw(&mut self, below: usize) -> usize {
        self.random = self.random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        usize::try_from(self.random >> 33).expect("31 bits") % below
    }

    fn take(&mut self, pages: usize) {
        let at = self.zone.take(pages).expect("memory");
        let fill = u8::try_from(self.draw(256)).expect("a byte");
        // SAFETY: taken, and nobody else has it.
        unsafe { slice::from_raw_parts_mut(at.as_ptr(), pages * PAGE_BYTES) }.fill(fill);
        self.taken.push((at, pages, fill));
    }

    fn give_back(&mut self, number: usize) {
        let (at, pages, fill) = self.taken.swap_remove(number);
        // SAFETY: taken, and written to.
        let bytes = unsafe { slice::from_raw_parts(at.as_ptr(), pages * PAGE_BYTES) };
        assert!(bytes.iter().all(|&byte| byte == fill), "nobody else wrote there");
        // SAFETY: taken above, and it is no longer known here.
        unsafe { self.zone.give_back(at, pages) };
    }
}

#[test]
fn pages_are_their_owners_until_they_are_given_back_whatever_is_merged_meanwhile() {
    let zone = Zone::new();
    let mut checked = Checked::new(&zone);
    for step in 0..20_000 {
        if checked.taken.is_empty() || checked.taken.len() < 400 && checked.draw(5) < 3 {
            let pages = 1 + checked.draw(if step % 100 == 0 { 256 } else { 20 });
            checked.take(pages);
        } else {
            let number = checked.draw(checked.taken.len());
            checked.give_back(number);
        }
        if step % 7 == 0 {
            checked.zone.merge_one();
        }
        if step % 1000 == 0 {
            checked.zone.check_invariants();
        }
    }
    while !checked.taken.is_empty() {
        checked.give_back(checked.taken.len() - 1);
    }
    assert_eq!(checked.zone.count(), (0, 0), "nothing stays mapped");
}

#[test]
fn a_chunk_is_made_a_huge_page_once_next_to_nothing_of_it_is_free_and_no_longer_stays_one_than_that() {
    let zone = Zone::new();
    let mut checked = Checked::new(&zone);
    // Of 512 pages in all.
    for (pages, huge) in [(256, 0), (200, 0), (23, 0), (17, 1)] {
        checked.take(pages);
        while checked.zone.merge_one() {}
        assert_eq!(checked.zone.count(), (1, huge), "{pages} pages more");
        checked.zone.check_invariants();
    }
    // The rest of it is handed out as well, and then there is a second chunk.
    checked.take(16);
    checked.take(1);
    assert_eq!(checked.zone.count(), (2, 1));
    // The one of 16 pages, and one more.
    checked.give_back(4);
    assert_eq!(checked.zone.count(), (2, 1), "little is free");
    checked.give_back(3);
    assert_eq!(checked.zone.count(), (2, 0));
    checked.zone.check_invariants();
    for _ in 0..4 {
        checked.give_back(0);
    }
    assert_eq!(checked.zone.count(), (0, 0));
}

#[test]
fn pages_are_taken_given_back_and_merged_by_several_threads() {
    let zone = Zone::new();
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let zone = &zone;
            scope.spawn(move || {
                let mut checked = Checked { random: seed, ..Checked::new(zone) };
                for _ in 0..3000 {
                    if checked.taken.len() < 60 {
                        let pages = 1 + checked.draw(40);
                        checked.take(pages);
                    } else {
                        let number = checked.draw(60);
                        checked.give_back(number);
                    }
                    zone.merge_one();
                }
                while !checked.taken.is_empty() {
                    checked.give_back(0);
                }
            });
        }
    });
    zone.check_invariants();
    assert_eq!(zone.count(), (0, 0));
}

#[test]
fn pages_that_were_given_back_hold_nothing_whether_they_were_merged_or_not() {
    for merged in [false, true] {
        let zone = Zone::new();
        let mut checked = Checked::new(&zone);
        checked.take(400);
        checked.take(110);
        if merged {
            while zone.merge_one() {}
            assert_eq!(zone.count(), (1, 1));
        }
        checked.give_back(0);
        let again = zone.take(400).expect("memory");
        assert_eq!(zone.count().0, 1, "there is room where it was");
        // SAFETY: taken, and memory of the system is never without a value.
        let bytes = unsafe { slice::from_raw_parts(again.as_ptr(), 400 * PAGE_BYTES) };
        assert!(bytes.iter().all(|&byte| byte == 0), "merged: {merged}");
        // SAFETY: taken above, and it is no longer looked at.
        unsafe { zone.give_back(again, 400) };
        checked.give_back(0);
    }
}
