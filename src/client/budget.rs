//! The cap on what a run may cost: a request starts only if its worst case fits beside everything before it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Money;

/// Money that is spent, reserved by requests in flight, and the cap on both; clones share one account.
///
/// As long as no request costs more than was reserved for it, what is spent never passes the cap.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    cap: Option<Money>,
    state: Mutex<State>,
    /// Told whenever a reservation ends, because another may fit then.
    ended: Notify,
}

#[derive(Debug)]
struct State {
    spent: Money,
    reserved: Money,
}

/// Why a request may not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not while the others are in flight; it may fit when they cost less than their worst case.
    Later,
    /// Not any more: what is spent and this request's worst case pass the cap.
    Never,
}

impl Budget {
    /// An account with `cap` (`None` for no cap) on which earlier runs have `spent`.
    pub fn new(cap: Option<Money>, spent: Money) -> Self {
        let state = Mutex::new(State { spent, reserved: Money::ZERO });
        Self(Arc::new(Account { cap, state, ended: Notify::new() }))
    }

    /// What is spent, earlier runs included.
    pub fn spent(&self) -> Money {
        self.0.lock().spent
    }

    /// What the requests in flight may cost at worst.
    pub fn reserved(&self) -> Money {
        self.0.lock().reserved
    }

    /// What may be spent in all.
    pub fn cap(&self) -> Option<Money> {
        self.0.cap
    }

    /// Reserves the worst case of a request, now or not at all.
    pub fn try_reserve(&self, worst_case: Money) -> Result<Reservation, Refusal> {
        self.0.take(worst_case)?;
        Ok(Reservation { account: Arc::clone(&self.0), worst_case, open: true })
    }

    /// Reserves the worst case of a request, waiting for requests in flight where that can help; `None` when it cannot.
    ///
    /// Cancel safe: a future that is dropped has reserved nothing.
    pub async fn reserve(&self, worst_case: Money) -> Option<Reservation> {
        loop {
            let mut ended = std::pin::pin!(self.0.ended.notified());
            // Enabled before the look at the account, so that no end between the two is missed.
            ended.as_mut().enable();
            match self.try_reserve(worst_case) {
                Ok(reservation) => return Some(reservation),
                Err(Refusal::Never) => return None,
                Err(Refusal::Later) => ended.await,
            }
        }
    }
}

impl Account {
    /// The state is consistent after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, worst_case: Money) -> Result<(), Refusal> {
        let mut state = self.lock();
        if let Some(cap) = self.cap {
            if state.spent + worst_case > cap {
                return Err(Refusal::Never);
            }
            if state.spent + state.reserved + worst_case > cap {
                return Err(Refusal::Later);
            }
        }
        state.reserved += worst_case;
        Ok(())
    }

    fn end(&self, worst_case: Money, spent: Money) {
        let mut state = self.lock();
        state.reserved = state.reserved.saturating_sub(worst_case);
        state.spent += spent;
        drop(state);
        self.ended.notify_waiters();
    }
}

/// The worst case of one request in flight.
///
/// Dropped without a word on the outcome, it counts as spent in full: nobody knows what the provider has billed.
#[derive(Debug)]
pub struct Reservation {
    account: Arc<Account>,
    worst_case: Money,
    open: bool,
}

impl Reservation {
    /// What is reserved.
    pub fn worst_case(&self) -> Money {
        self.worst_case
    }

    /// Reserves as much again for a further try of a request whose last one may have been billed.
    pub fn try_grow(&mut self, worst_case: Money) -> Result<(), Refusal> {
        // What is reserved already belongs to the same request and will not be freed by waiting for others.
        let state = self.account.lock();
        let own = state.spent + self.worst_case + worst_case;
        drop(state);
        if self.account.cap.is_some_and(|cap| own > cap) {
            return Err(Refusal::Never);
        }
        self.account.take(worst_case)?;
        self.worst_case += worst_case;
        Ok(())
    }

    /// Ends it with what the request has cost.
    pub fn settle(mut self, cost: Money) {
        if cost > self.worst_case {
            log::warn!("a request cost {cost}, more than its worst case of {}", self.worst_case);
        }
        self.open = false;
        self.account.end(self.worst_case, cost);
    }

    /// Ends it for a request that was never sent.
    pub fn release(self) {
        self.settle(Money::ZERO);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.open {
            self.account.end(self.worst_case, self.worst_case);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn cents(cents: u32) -> Money {
        Money::from_dollars(f64::from(cents) / 100.0).unwrap()
    }

    #[test]
    fn what_earlier_runs_spent_counts() {
        let budget = Budget::new(Some(cents(100)), cents(90));
        assert_eq!(budget.try_reserve(cents(11)).unwrap_err(), Refusal::Never);
        let reservation = budget.try_reserve(cents(10)).unwrap();
        assert_eq!(budget.try_reserve(cents(1)).unwrap_err(), Refusal::Later);
        reservation.settle(cents(4));
        assert_eq!((budget.spent(), budget.reserved()), (cents(94), Money::ZERO));
        assert_eq!(budget.try_reserve(cents(7)).unwrap_err(), Refusal::Never);
    }

    #[test]
    fn an_unknown_outcome_is_spent_and_an_unsent_request_is_not() {
        let budget = Budget::new(Some(cents(100)), Money::ZERO);
        drop(budget.try_reserve(cents(30)).unwrap());
        budget.try_reserve(cents(30)).unwrap().release();
        assert_eq!((budget.spent(), budget.reserved()), (cents(30), Money::ZERO));
    }

    #[test]
    fn a_further_try_needs_room_of_its_own() {
        let budget = Budget::new(Some(cents(100)), Money::ZERO);
        let mut first = budget.try_reserve(cents(40)).unwrap();
        let other = budget.try_reserve(cents(30)).unwrap();
        assert_eq!(first.try_grow(cents(40)), Err(Refusal::Later));
        assert_eq!(first.try_grow(cents(61)), Err(Refusal::Never));
        other.settle(cents(10));
        assert_eq!(first.try_grow(cents(40)), Ok(()));
        assert_eq!(first.worst_case(), cents(80));
        first.settle(cents(70));
        assert_eq!(budget.spent(), cents(80));
    }

    #[test]
    fn without_a_cap_everything_fits() {
        let budget = Budget::new(None, cents(5));
        budget.try_reserve(cents(1_000_000)).unwrap().settle(cents(1));
        assert_eq!((budget.spent(), budget.cap()), (cents(6), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_those_in_flight() {
        let budget = Budget::new(Some(cents(10)), Money::ZERO);
        let held = budget.try_reserve(cents(8)).unwrap();
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(cents(5)).await.map(|reservation| reservation.settle(cents(5))) }
        });
        let hopeless = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(cents(8)).await.is_none() }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished() && !hopeless.is_finished());
        held.settle(cents(4));
        assert!(waiting.await.unwrap().is_some());
        assert!(hopeless.await.unwrap());
        assert_eq!(budget.spent(), cents(9));
    }

    #[test]
    fn threads_together_stay_below_the_cap() {
        let budget = Budget::new(Some(cents(1000)), cents(3));
        thread::scope(|scope| {
            for seed in 0..8 {
                let budget = budget.clone();
                scope.spawn(move || {
                    for round in 0..500 {
                        let worst_case = 1 + (seed * 7 + round * 13) % 40;
                        if let Ok(reservation) = budget.try_reserve(cents(worst_case)) {
                            reservation.settle(cents(worst_case - worst_case / 3));
                        }
                        assert!(budget.spent() <= cents(1000));
                    }
                });
            }
        });
        assert_eq!(budget.reserved(), Money::ZERO);
        assert!(budget.spent() > cents(950));
    }

    /// One step of an interleaving: a request starts, or one in flight has a further try or ends.
    #[derive(Debug, Clone)]
    enum Step {
        Start(u32),
        Retry(usize, u32),
        End(usize, f64),
        Forget(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_u32..50).prop_map(Step::Start),
            1 => (any::<usize>(), 0_u32..50).prop_map(|(which, amount)| Step::Retry(which, amount)),
            2 => (any::<usize>(), 0.0_f64..=1.0).prop_map(|(which, share)| Step::End(which, share)),
            1 => any::<usize>().prop_map(Step::Forget),
        ]
    }

    proptest! {
        #[test]
        fn no_interleaving_passes_the_cap(
            cap in 0_u32..200,
            before in 0_u32..200,
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let budget = Budget::new(Some(cents(cap)), cents(before));
            let most = cents(cap.max(before));
            let mut in_flight: Vec<Reservation> = Vec::new();
            for step in steps {
                match step {
                    Step::Start(worst_case) => in_flight.extend(budget.try_reserve(cents(worst_case))),
                    Step::Retry(which, more) if !in_flight.is_empty() => {
                        let which = which % in_flight.len();
                        let _ = in_flight[which].try_grow(cents(more));
                    }
                    Step::End(which, share) if !in_flight.is_empty() => {
                        let reservation = in_flight.swap_remove(which % in_flight.len());
                        let cost = Money::from_dollars(reservation.worst_case().dollars() * share).unwrap();
                        reservation.settle(cost);
                    }
                    Step::Forget(which) if !in_flight.is_empty() => {
                        drop(in_flight.swap_remove(which % in_flight.len()));
                    }
                    _ => {}
                }
                let held: Money = in_flight.iter().map(Reservation::worst_case).sum();
                prop_assert_eq!(budget.reserved(), held);
                prop_assert!(budget.spent() + held <= most);
            }
        }
    }
}
