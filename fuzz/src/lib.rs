//! What several targets need: answers that are there at once, and a policy with options out of the input.

pub mod grpc;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use arbitrary::{Result, Unstructured};
use engine::{StoreError, StoreFuture};
use policies::{OptionDoc, PolicyEntry, PolicyFactory, REGISTRY};
use serde_json::{Map, Value, json};

/// What a store in memory answers.
pub fn ready<T>(future: StoreFuture<'_, T>) -> std::result::Result<T, StoreError> {
    match future {
        StoreFuture::Ready(result) => result.expect("not polled yet"),
        StoreFuture::Pending(_) => panic!("the memory store answers at once"),
    }
}

/// What a future comes to that waits for nothing.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits for something"),
    }
}

/// A policy with options out of the input.
pub struct AnyPolicy {
    pub entry: &'static PolicyEntry,
    pub factory: Box<dyn PolicyFactory>,
    /// It decides as libCacheSim does, which refuses some entries that there is room for.
    pub is_libcachesim: bool,
}

/// Any policy with any options; defaults where the options are refused.
pub fn policy(input: &mut Unstructured<'_>) -> Result<AnyPolicy> {
    let entry = &REGISTRY[usize::from(input.arbitrary::<u8>()?) % REGISTRY.len()];
    let mut options = Map::new();
    for option in entry.options {
        if input.arbitrary::<u8>()? & 1 == 1 {
            options.insert(option.name.to_owned(), value(option, input)?);
        }
    }
    let is_libcachesim = options.get("variant").is_some_and(|variant| variant == "libcachesim");
    let options = Value::Object(options);
    let factory = (entry.configure)(&mut <dyn erased_serde::Deserializer<'_>>::erase(&options));
    let factory = factory.unwrap_or_else(|_| (entry.with_defaults)());
    Ok(AnyPolicy { entry, factory, is_libcachesim })
}

/// A value for an option: one of those that its documentation names or that lie between them, or one that it does not.
fn value(option: &OptionDoc, input: &mut Unstructured<'_>) -> Result<Value> {
    let choices: Vec<&str> = option.allowed.split('"').skip(1).step_by(2).collect();
    let share = f64::from(input.arbitrary::<u8>()?);
    if !choices.is_empty() {
        return Ok(json!(choices[share as usize % choices.len()]));
    }
    let bounds: Vec<&str> = option.allowed.split(" to ").collect();
    Ok(match bounds[..] {
        [from, to] if from.contains('.') => {
            let (from, to): (f64, f64) = (from.parse().expect("a number"), to.parse().expect("a number"));
            json!(from + (to - from) * share / 254.0)
        }
        [from, to] => {
            let (from, to): (i64, i64) = (from.parse().expect("a number"), to.parse().expect("a number"));
            json!(from + share as i64 % (to - from + 2))
        }
        _ => json!(share as i64 - 1),
    })
}
