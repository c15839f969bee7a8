use super::limits::max_k;
use super::wire::{ExternalId, RecommendRequest};
use canet_serving::{Generation, Serving, Side, SplitBy};

/// The generation that answers a request: the candidate if the request is in its share, else the live one.
///
/// Clients know the live model alone. So a request that the candidate cannot answer, because it names a route that the
/// candidate lacks or asks for more items than it has, is for the live generation.
pub(crate) fn side(request: &RecommendRequest, serving: &Serving) -> Side {
    let Some(candidate) = &serving.candidate else { return Side::Live };
    let by = request.user.as_ref().map_or(SplitBy::History, |user| SplitBy::User(user.as_str()));
    let is_taken = candidate.split.takes(by, request.history.iter().map(|ExternalId(id)| &**id));
    if is_taken && can_answer(&candidate.generation, request) { Side::Candidate } else { Side::Live }
}

fn can_answer(generation: &Generation, request: &RecommendRequest) -> bool {
    let items = generation.model.catalogue().len();
    let has_route = request.route == "auto" || generation.model.space().named(&request.route).is_some();
    has_route && request.k(items) <= max_k(items) as u64
}

#[cfg(test)]
mod tests {
    use super::side;
    use crate::testing::Fixture;
    use crate::wire::{ExternalId, RecommendRequest, UserId};
    use canet_serving::{Offer, Serving, Side};

    fn request(user: Option<&str>, history: &[&str]) -> RecommendRequest {
        let id = |id: &str| ExternalId(id.into());
        let history = history.iter().map(|item| id(item)).collect();
        RecommendRequest { user: user.and_then(UserId::given), ..RecommendRequest::new(history) }
    }

    /// Version 1 is live, and version 2 is the candidate of a share of the users.
    async fn serving(share: f64) -> (Fixture, Serving) {
        let fixture = Fixture::new();
        fixture.reloader.reload(Some(1)).await.unwrap();
        fixture.write_version(2);
        fixture.reloader.offer(Offer { version: Some(2), share }).await.unwrap();
        let serving = fixture.recommender.serving().unwrap();
        (fixture, serving)
    }

    #[tokio::test]
    async fn a_user_stays_on_one_side_whatever_the_history_is() {
        let (_fixture, serving) = serving(0.5).await;
        let mut sides = [0, 0];
        for user in 0..200 {
            let user = user.to_string();
            let of = |history: &[&str]| side(&request(Some(&user), history), &serving);
            assert!(["1", "2", "3"].into_iter().all(|item| of(&[item]) == of(&[])));
            sides[usize::from(of(&[]) == Side::Candidate)] += 1;
        }
        assert!(sides.iter().all(|count| *count > 60), "{sides:?}");
        // Without a user, the history decides.
        let histories: Vec<String> = (0..200).map(|item| item.to_string()).collect();
        let by_history = |history: &String| side(&request(None, &[history]), &serving) == Side::Candidate;
        assert!((60..140).contains(&histories.iter().filter(|history| by_history(history)).count()));
        assert_eq!(side(&request(Some(""), &["7"]), &serving), side(&request(None, &["7"]), &serving));
    }

    #[tokio::test]
    async fn what_the_candidate_cannot_answer_is_for_the_live_generation() {
        let (_fixture, serving) = serving(1.0).await;
        let items = serving.live.model.catalogue().len() as u64;
        let asks = |k: Option<u64>, route: &str| {
            side(&RecommendRequest { k, route: route.to_owned(), ..request(Some("u"), &[]) }, &serving)
        };
        assert_eq!([asks(None, "auto"), asks(Some(items), "full")], [Side::Candidate; 2]);
        assert_eq!([asks(Some(items + 1), "auto"), asks(None, "h5-l5-e5")], [Side::Live; 2]);
        let alone = Serving::only(serving.live);
        assert_eq!(side(&request(Some("u"), &[]), &alone), Side::Live);
    }
}
