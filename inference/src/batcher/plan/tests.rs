use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Item {
    id: usize,
    tokens: usize,
    submitted: Instant,
    deadline: Option<Instant>,
    abandoned: bool,
}

impl Waiting for Item {
    fn tokens(&self) -> usize {
        self.tokens
    }
    fn submitted(&self) -> Instant {
        self.submitted
    }
    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
    fn abandoned(&self) -> bool {
        self.abandoned
    }
}

const RULES: Rules = Rules { token_budget: 100, bulk_ageing: Duration::from_secs(1) };

fn items(start: Instant, tokens: &[usize]) -> VecDeque<Item> {
    tokens
        .iter()
        .enumerate()
        .map(|(id, &tokens)| Item { id, tokens, submitted: start, deadline: None, abandoned: false })
        .collect()
}

fn fates(n: usize) -> Vec<Fate> {
    vec![Fate::Run; n]
}

#[test]
fn interactive_goes_first_and_bulk_fills_the_rest() {
    let now = Instant::now();
    let (interactive, bulk) = (items(now, &[30, 30]), items(now, &[30, 30, 30]));
    let batch = plan(&QueueView { interactive: &interactive, bulk: &bulk, passed_over: 0 }, now, &RULES);
    assert_eq!(batch, Batch { interactive: fates(2), bulk: fates(1), tokens: 90 });
}

#[test]
fn a_text_over_the_budget_runs_alone() {
    let now = Instant::now();
    let (interactive, bulk) = (items(now, &[101, 1]), items(now, &[1]));
    let batch = plan(&QueueView { interactive: &interactive, bulk: &bulk, passed_over: 0 }, now, &RULES);
    assert_eq!(batch, Batch { interactive: fates(1), bulk: vec![], tokens: 101 });
    let interactive = items(now, &[1, 101]);
    let batch = plan(&QueueView { interactive: &interactive, bulk: &VecDeque::new(), passed_over: 0 }, now, &RULES);
    assert_eq!(batch, Batch { interactive: fates(1), bulk: vec![], tokens: 1 });
}

#[test]
fn expired_and_abandoned_texts_leave_without_costing_tokens() {
    let now = Instant::now();
    let mut lane = items(now, &[90, 90, 90, 90]);
    lane[0].deadline = Some(now);
    lane[1].abandoned = true;
    lane[2].deadline = Some(now + Duration::from_millis(1));
    let batch = plan(&QueueView { interactive: &lane, bulk: &VecDeque::new(), passed_over: 0 }, now, &RULES);
    assert_eq!(batch, Batch { interactive: vec![Fate::Expired, Fate::Abandoned, Fate::Run], bulk: vec![], tokens: 90 });
}

#[test]
fn aged_bulk_gets_a_share_of_its_own_after_being_passed_over() {
    let start = Instant::now();
    let now = start + Duration::from_secs(2);
    let (interactive, bulk) = (items(now, &[50, 50, 50]), items(start, &[20, 20, 20]));
    let view = |passed_over| QueueView { interactive: &interactive, bulk: &bulk, passed_over };
    assert_eq!(plan(&view(2), now, &RULES), Batch { interactive: fates(2), bulk: vec![], tokens: 100 });
    assert_eq!(plan(&view(3), now, &RULES), Batch { interactive: fates(1), bulk: fates(2), tokens: 90 });
    // Not aged yet: interactive keeps the batch.
    let young = items(now, &[20]);
    let batch = plan(&QueueView { interactive: &interactive, bulk: &young, passed_over: 9 }, now, &RULES);
    assert_eq!(batch.bulk, vec![]);
}

#[test]
fn a_worker_prepares_interactive_then_tops_up_bulk_then_runs() {
    let load = |raw_interactive, raw_bulk, ready, ready_bulk_tokens, closed| Load {
        raw_interactive,
        raw_bulk,
        ready,
        ready_bulk_tokens,
        closed,
    };
    let table = [
        (load(1, 9, 9, 0, false), Step::Prepare(Lane::Interactive)),
        (load(0, 9, 3, 99, false), Step::Prepare(Lane::Bulk)),
        (load(0, 9, 3, 100, false), Step::Run),
        (load(0, 0, 1, 0, false), Step::Run),
        (load(0, 0, 0, 0, false), Step::Wait),
        (load(0, 0, 0, 0, true), Step::Stop),
        (load(0, 1, 0, 0, true), Step::Prepare(Lane::Bulk)),
        (load(0, 0, 1, 0, true), Step::Run),
    ];
    for (load, expected) in table {
        assert_eq!(step(&load, &RULES), expected, "{load:?}");
    }
}

/// One arrival of the simulation: after `delay` ms, in a lane, with tokens, perhaps with a deadline or a caller that goes.
fn arrivals() -> impl Strategy<Value = Vec<(u64, bool, usize, Option<u64>, bool)>> {
    let arrival =
        (0u64..40, any::<bool>(), 1usize..150, prop::option::weighted(0.2, 0u64..400), prop::bool::weighted(0.1));
    prop::collection::vec(arrival, 1..120)
}

proptest! {
    /// A simulated worker with a simulated clock. A batch takes 20 ms and half a millisecond a token, so that either lane
    /// alone could keep it busy and bulk texts age.
    #[test]
    fn nothing_is_lost_doubled_starved_or_over_budget(arrivals in arrivals()) {
        let rules = Rules { bulk_ageing: Duration::from_millis(100), ..RULES };
        let start = Instant::now();
        let mut clock = start;
        let mut arrival_time = start;
        let mut pending: VecDeque<(Instant, bool, Item)> = VecDeque::new();
        for (id, &(delay, bulk, tokens, deadline, abandoned)) in arrivals.iter().enumerate() {
            arrival_time += Duration::from_millis(delay);
            let deadline = deadline.map(|ms| arrival_time + Duration::from_millis(ms));
            pending.push_back((arrival_time, bulk, Item { id, tokens, submitted: arrival_time, deadline, abandoned }));
        }
        let (mut interactive, mut bulk) = (VecDeque::new(), VecDeque::new());
        let (mut over, mut bulk_waited_batches) = (0, 0);
        let mut seen = vec![0; arrivals.len()];
        let mut last_run = [None::<usize>; 2];
        while !(pending.is_empty() && interactive.is_empty() && bulk.is_empty()) {
            while pending.front().is_some_and(|(at, ..)| *at <= clock) {
                if let Some((_, is_bulk, item)) = pending.pop_front() {
                    if is_bulk { bulk.push_back(item) } else { interactive.push_back(item) }
                }
            }
            if interactive.is_empty() && bulk.is_empty() {
                clock = pending.front().map_or(clock, |(at, ..)| *at);
                continue;
            }
            let aged = bulk.front().is_some_and(|oldest: &Item| clock - oldest.submitted >= rules.bulk_ageing);
            let batch = plan(&QueueView { interactive: &interactive, bulk: &bulk, passed_over: over }, clock, &rules);
            over = passed_over(over, !bulk.is_empty(), &batch);
            prop_assert!(batch.interactive.len() + batch.bulk.len() > 0, "a batch must make progress");

            let mut ran = Vec::new();
            for (lane, (queue, fates)) in [(&mut interactive, &batch.interactive), (&mut bulk, &batch.bulk)].into_iter().enumerate() {
                for fate in fates {
                    let item: Item = queue.pop_front().unwrap();
                    seen[item.id] += 1;
                    match fate {
                        Fate::Abandoned => prop_assert!(item.abandoned),
                        Fate::Expired => prop_assert!(item.deadline.is_some_and(|deadline| deadline <= clock)),
                        Fate::Run => {
                            prop_assert!(!item.abandoned && item.deadline.is_none_or(|deadline| deadline > clock));
                            prop_assert!(last_run[lane] < Some(item.id), "order within a lane is by age");
                            last_run[lane] = Some(item.id);
                            ran.push(item.tokens);
                        }
                    }
                }
            }
            let tokens: usize = ran.iter().sum();
            prop_assert_eq!(tokens, batch.tokens);
            prop_assert!(tokens <= rules.token_budget || ran.len() == 1);
            // Starvation: aged bulk waits at most MAX_PASSED_OVER batches before one of it leaves the queue.
            bulk_waited_batches = if aged && batch.bulk.is_empty() { bulk_waited_batches + 1 } else { 0 };
            prop_assert!(bulk_waited_batches <= MAX_PASSED_OVER);
            clock += Duration::from_millis(20 + tokens as u64 / 2);
        }
        prop_assert!(seen.iter().all(|&times| times == 1), "each text leaves exactly once: {:?}", seen);
    }
}
