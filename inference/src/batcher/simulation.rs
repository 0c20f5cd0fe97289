//! Whole lives of the queue with a simulated clock: texts come in both lanes with deadlines and callers that leave, workers
//! take them, run out of memory, and fall ill.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::Semaphore;
use tokio::sync::oneshot::error::TryRecvError;

use super::super::fake::prepared;
use super::super::faults::{Budget, MAX_RETURNS, SUSPECT_RETURNS};
use super::*;

const BUDGET: usize = 100;

/// A text: after `delay` ms, in a lane, with tokens, perhaps with a deadline or a caller that leaves after so many ms.
#[derive(Clone, Debug)]
struct Arrival {
    delay: u64,
    bulk: bool,
    tokens: usize,
    deadline: Option<u64>,
    leaves: Option<u64>,
}

/// Where a caller's answer comes.
type Receiver = oneshot::Receiver<Result<Scored>>;

/// What becomes of a batch.
#[derive(Clone, Copy, Debug)]
enum End {
    Good,
    Exhausted,
    Ill,
}

/// What a simulated worker is at.
#[derive(Default)]
enum Busy {
    #[default]
    Idle,
    Preparing(Vec<Queued<String>>),
    Running(Vec<Queued<Prepared>>, End),
}

#[derive(Clone, Debug)]
struct Caller {
    lane: usize,
    tokens: usize,
    submitted: Instant,
    deadline: Option<Instant>,
    leaves: Option<Instant>,
    runs: u32,
    returns: u32,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let rare = |range| prop::option::weighted(0.15, range);
    let arrival = (0u64..30, any::<bool>(), 1usize..150, rare(0u64..400), rare(0u64..200))
        .prop_map(|(delay, bulk, tokens, deadline, leaves)| Arrival { delay, bulk, tokens, deadline, leaves });
    prop::collection::vec(arrival, 1..150)
}

fn ends() -> impl Strategy<Value = Vec<End>> {
    prop::collection::vec(prop_oneof![8 => Just(End::Good), 1 => Just(End::Exhausted), 1 => Just(End::Ill)], 400)
}

fn prepare(callers: &[Caller], item: Queued<String>) -> Queued<Prepared> {
    let tokens = callers[item.payload.parse::<usize>().unwrap()].tokens;
    prepared(item, tokens)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_is_lost_doubled_starved_over_budget_or_out_of_order(arrivals in arrivals(), ends in ends(), workers in 1usize..4, readers in 0usize..3, pauses in any::<bool>()) {
        let rules = Rules {
            token_budget: BUDGET,
            bulk_tokens: 40,
            pauses,
            interactive_window: Duration::from_millis(50),
            bulk_ageing: Duration::from_millis(100),
        };
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let room = Arc::new(Semaphore::new(arrivals.len()));
        let (mut state, mut clock) = (State::default(), start);
        let mut due = start;
        let mut pending: VecDeque<(Instant, Arrival)> =
            arrivals.iter().map(|a| { due += ms(a.delay); (due, a.clone()) }).collect();
        let (mut callers, mut receivers): (Vec<Caller>, Vec<Option<Receiver>>) = Default::default();
        let mut answered = vec![0u32; arrivals.len()];
        // Workers that do everything, or some that prepare for those that run.
        let runs = if readers == 0 { Role::All } else { Role::Run };
        let roles = std::iter::repeat_n(runs, workers).chain(std::iter::repeat_n(Role::Prepare, readers));
        let mut crew: Vec<(Instant, Busy, Budget, Role, Concession)> =
            roles.map(|role| (start, Busy::Idle, Budget::new(BUDGET), role, Concession::NONE)).collect();
        // Chunks that two prepare may come back in either order; who runs prepares, too, in pauses.
        let one_prepares = workers == 1 && (readers == 0 || (readers == 1 && !pauses));
        let mut ends = ends.into_iter().chain(std::iter::repeat(End::Good));
        let mut newest = [None::<u64>; 2];
        let mut passed = 0;
        let mut steps = 0;
        loop {
            steps += 1;
            prop_assert!(steps < 100_000, "it must come to an end");
            // Texts come and callers leave.
            while pending.front().is_some_and(|(at, _)| *at <= clock) {
                let Some((at, arrival)) = pending.pop_front() else { break };
                let (reply, receiver) = oneshot::channel();
                let lane = if arrival.bulk { Lane::Bulk } else { Lane::Interactive };
                let deadline = arrival.deadline.map(|after| at + ms(after));
                let permit = Arc::clone(&room).try_acquire_owned().unwrap();
                state.submit(callers.len().to_string(), Ticket { lane, submitted: at, deadline, reply, room: permit }).unwrap();
                callers.push(Caller { lane: usize::from(arrival.bulk), tokens: arrival.tokens, submitted: at, deadline,
                    leaves: arrival.leaves.map(|after| at + ms(after)), runs: 0, returns: 0 });
                receivers.push(Some(receiver));
            }
            if pending.is_empty() {
                state.close();
            }
            for (caller, receiver) in callers.iter().zip(&mut receivers) {
                if caller.leaves.is_some_and(|at| at <= clock) {
                    *receiver = None;
                }
            }
            // Workers finish, and take.
            let mut stopped = 0;
            for (until, busy, budget, role, given) in &mut crew {
                if *until > clock {
                    if !matches!(busy, Busy::Running(..)) {
                        continue;
                    }
                    let (mut work, mut useless) = state.next_in_pause(clock, *given, true);
                    if let Work::Prepare(items) = work {
                        prop_assert!(state.prepared(items.into_iter().map(|item| prepare(&callers, item)).collect()).is_empty());
                        let (next, more) = state.next_in_pause(clock, *given, false);
                        work = next;
                        useless.extend(more);
                    }
                    for (ticket, _) in useless {
                        ticket.answer(Err(Error::new(ErrorKind::DeadlineExceeded, "late")));
                    }
                    let Work::Run(items) = work else { continue };
                    let tokens: usize = items.iter().map(Waiting::tokens).sum();
                    let fits = tokens <= given.tokens && items.iter().all(|item| item.tokens() <= given.longest);
                    prop_assert!(fits || (given.whole && items.len() == 1));
                    given.take(tokens);
                    *until += ms(tokens as u64 / 2);
                    if !matches!(ends.next(), Some(End::Good)) {
                        *given = Concession::NONE;
                        prop_assert!(state.put_back(items).is_empty());
                        continue;
                    }
                    for item in items {
                        let caller = &mut callers[item.payload.text.clean_text.parse::<usize>().unwrap()];
                        prop_assert!(caller.lane == 0 && caller.deadline.is_none_or(|deadline| deadline > clock));
                        if caller.runs == 0 && one_prepares {
                            prop_assert!(newest[0] < Some(item.number), "by age within a lane, also in pauses");
                            newest[0] = Some(item.number);
                        }
                        caller.runs += 1;
                        item.ticket.answer(Err(Error::new(ErrorKind::Cancelled, "ran in a pause")));
                    }
                    continue;
                }
                match std::mem::take(busy) {
                    Busy::Idle => {}
                    Busy::Preparing(items) => {
                        prop_assert!(state.prepared(items.into_iter().map(|item| prepare(&callers, item)).collect()).is_empty());
                    }
                    Busy::Running(items, End::Ill) => {
                        for item in &items {
                            callers[item.payload.text.clean_text.parse::<usize>().unwrap()].returns += 1;
                        }
                        let alone = items.len() == 1;
                        for (ticket, returned) in state.give_back(items, alone) {
                            prop_assert!(alone && returned == Returned::Blamed, "who is given up was alone for long");
                            ticket.answer(Err(Closed::NoWorker.error()));
                        }
                        *until = clock + ms(40);
                        continue;
                    }
                    Busy::Running(items, end) => {
                        let sizes = || items.iter().map(Waiting::tokens);
                        *budget = match end {
                            End::Exhausted if items.len() > 1 => budget.exhausted(sizes().sum(), sizes().max().unwrap_or(0)),
                            _ => budget.good(),
                        };
                        for item in items {
                            item.ticket.answer(Err(Error::new(ErrorKind::Cancelled, "ran")));
                        }
                    }
                }
                let (work, useless) = state.next(*role, clock, budget.tokens(), &rules);
                for (ticket, fate) in useless {
                    match fate {
                        Fate::Expired => prop_assert!(ticket.deadline.is_some_and(|deadline| deadline <= clock)),
                        _ => prop_assert!(ticket.reply.is_closed()),
                    }
                    ticket.answer(Err(Error::new(ErrorKind::DeadlineExceeded, "late")));
                }
                match work {
                    Work::Stop => stopped += 1,
                    Work::Wait => {}
                    Work::Prepare(items) => {
                        *until = clock + ms(1);
                        *busy = Busy::Preparing(items);
                    }
                    Work::Run(items) => {
                        let tokens: usize = items.iter().map(Waiting::tokens).sum();
                        prop_assert!(tokens <= budget.tokens() || items.len() == 1, "{} of {}", tokens, budget.tokens());
                        let has_bulk = items.iter().any(|item| item.ticket.lane == Lane::Bulk);
                        let limit = plan::bulk_limit(callers.iter().filter(|c| c.lane == 0).map(|c| c.submitted).max(), clock, &rules);
                        // Aged bulk that goes first takes a share, and interactive texts the rest of a full batch.
                        let bulk = || items.iter().filter(|item| item.ticket.lane == Lane::Bulk);
                        let aged = bulk().any(|item| clock - item.ticket.submitted >= rules.bulk_ageing);
                        let share = bulk().count() == 1 || bulk().map(Waiting::tokens).sum::<usize>() <= BUDGET / 4;
                        let nobody_waits = pauses && bulk().count() == items.len();
                        let small = tokens <= limit || items.len() == 1 || (aged && share) || nobody_waits;
                        prop_assert!(!has_bulk || small, "bulk makes {} of {}", tokens, limit);
                        let mut before = [None; 2];
                        for item in &items {
                            let caller = &mut callers[item.payload.text.clean_text.parse::<usize>().unwrap()];
                            prop_assert!(!item.ticket.reply.is_closed() && caller.deadline.is_none_or(|deadline| deadline > clock));
                            prop_assert!(caller.returns < u32::from(SUSPECT_RETURNS) || items.len() == 1, "a suspect runs alone");
                            prop_assert!(before[caller.lane] < Some(item.number), "by age within a batch");
                            before[caller.lane] = Some(item.number);
                            // What came back from an ill device is older than what ran meanwhile.
                            if caller.runs == 0 && one_prepares {
                                prop_assert!(newest[caller.lane] < Some(item.number), "by age within a lane");
                                newest[caller.lane] = Some(item.number);
                            }
                            caller.runs += 1;
                            prop_assert!(caller.runs <= u32::from(MAX_RETURNS) + 1);
                        }
                        // Starvation: what has aged and is ready is passed over a bounded number of times.
                        let aged = state.ready.bulk.front().is_some_and(|oldest| clock - oldest.ticket.submitted >= rules.bulk_ageing);
                        let suspect = items.iter().any(Waiting::suspect);
                        passed = if aged && !has_bulk && !suspect { passed + 1 } else { 0 };
                        prop_assert!(passed <= plan::MAX_PASSED_OVER + 1, "bulk starves");
                        *given = match pauses {
                            true => plan::concession(items.iter().map(|i| (i.ticket.lane, i.tokens())), budget.tokens(), &rules),
                            false => Concession::NONE,
                        };
                        *until = clock + ms(5 + tokens as u64 / 2);
                        *busy = Busy::Running(items, ends.next().unwrap_or(End::Good));
                    }
                }
            }
            for (times, receiver) in answered.iter_mut().zip(&mut receivers) {
                if let Some(open) = receiver {
                    match open.try_recv() {
                        Ok(_) => { *times += 1; *receiver = None; }
                        Err(TryRecvError::Closed) => prop_assert!(false, "a text was lost"),
                        Err(TryRecvError::Empty) => {}
                    }
                }
            }
            if stopped == workers + readers {
                break;
            }
            clock += ms(1);
        }
        prop_assert!(receivers.iter().all(Option::is_none), "everybody was answered or had left");
        prop_assert!(callers.iter().zip(&answered).all(|(caller, &times)| times == 1 || caller.leaves.is_some()));
        prop_assert_eq!(room.available_permits(), arrivals.len(), "all room is free again");
    }
}
