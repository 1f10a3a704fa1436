//! fake
use simulator::{Mode, SimulationResult, curve::{Advice, Choice}, report::Report};
const P: [&str; 18] = ["fifo","random","clock","lru","slru","lru-k","lfu","two-q","arc","lirs","sieve","s3-fifo","clock2q-plus","w-tinylfu","gdsf","lhd","hyperbolic","lecar"];
fn main() {
    let dir = std::env::args().nth(1).unwrap();
    for (name, count, points, mode) in [("small", 4, 6, Mode::Items), ("all", 18, 16, Mode::Items), ("bytes", 8, 12, Mode::Bytes), ("one", 18, 1, Mode::Items)] {
        let mut results = vec![]; let mut advice = vec![];
        for (i, p) in P.iter().chain(["belady"].iter()).enumerate() {
            if i >= count && *p != "belady" { continue; }
            let q = if *p == "belady" { 0.72 } else { 1.0 + ((i * 7) % 18) as f64 * 0.03 };
            let f = |c: f64| (1.0 - 0.97 * c.powf(0.33 / q)).max(0.02) * 0.9;
            for k in 0..points {
                let frac = 0.01 * 100f64.powf(k as f64 / (points.max(2) - 1) as f64);
                let cap = match mode { Mode::Items => 86_466.0, Mode::Bytes => 3.1e9 } * frac;
                let m = f(frac);
                results.push(SimulationResult { trace: "cache2k-orm-night".into(), mode, capacity: cap as u64, policy: (*p).into(), requests: 5_000_000, misses: (m * 5e6) as u64, miss_ratio: m, byte_miss_ratio: m * 1.02, seconds: 0.4 });
            }
            if *p != "belady" {
              let c = |x: f64| Choice { capacity: (86_466.0 * x) as u64, miss_ratio: f(x) };
              advice.push(Advice { trace: "cache2k-orm-night".into(), mode, policy: (*p).into(), half: c(0.05), same: c(0.1), double: c(0.2) });
            }
        }
        let notes = vec!["Miniature simulation (made-up numbers): each capacity on a sample of the objects, at least 4,096 entries large.".to_owned()];
        let r = Report { title: "Miss-ratio curves", notes: &notes, results: &results, advice: &advice };
        std::fs::write(format!("{dir}/{name}.html"), r.html()).unwrap();
        std::fs::write(format!("{dir}/{name}.svg"), r.svg()).unwrap();
        std::fs::write(format!("{dir}/{name}.png"), r.png().unwrap()).unwrap();
    }
}
