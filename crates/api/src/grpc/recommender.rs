use std::future::ready;
use std::sync::Arc;

use axum::http::header;
use futures_util::stream::{self, StreamExt};
use tonic::{Request, Response, Status};

use super::answers::Answers;
use super::message_answer::MessageAnswer;
use crate::Problem;
use crate::allowance::Allowance;
use crate::answer_budget::MessageCharge;
use crate::answer_size::AnswerForm;
use crate::call::{Call, pin};
use crate::deadline::Arrival;
use crate::observe::CallId;
use crate::proto::canet::v1 as proto;
use crate::proto::canet::v1::recommender_server::Recommender as Methods;
use crate::turns::Turns;
use crate::validate::Accepted;
use canet_serving::Recommender;

/// `canet.v1.Recommender`.
pub(super) struct Service {
    recommender: Arc<Recommender>,
}

impl Service {
    pub(super) fn new(recommender: Arc<Recommender>) -> Service {
        Service { recommender }
    }
}

#[tonic::async_trait]
impl Methods for Service {
    async fn recommend(
        &self,
        request: Request<proto::RecommendRequest>,
    ) -> Result<Response<proto::RecommendResponse>, Status> {
        let arrival = Arrival::of_message(&request);
        let (answers, id) = (Allowance::answers(request.extensions()), CallId::of(request.extensions()));
        let serving = pin(&self.recommender, 1)?;
        let call = Call { recommender: &self.recommender, serving: &serving, arrival, id: id.as_ref() };
        let accepted = call.accept(request.into_inner().try_into()?)?;
        let (answered, reservation) = call.answer_one(accepted, &answers, AnswerForm::Message).await?;
        let _permit = reservation.build_permit().await;
        let (message, mut turns) = (MessageAnswer::new(&reservation), Turns::default());
        let mut response = Response::new(message.response(answered.recommendation, &mut turns).await?);
        response.extensions_mut().insert(answered.times);
        response.extensions_mut().insert(MessageCharge::one(reservation.built(turns.worked())));
        Ok(response)
    }

    async fn recommend_batch(
        &self,
        request: Request<proto::RecommendBatchRequest>,
    ) -> Result<Response<proto::RecommendBatchResponse>, Status> {
        let arrival = Arrival::of_message(&request);
        let (answers, id) = (Allowance::answers(request.extensions()), CallId::of(request.extensions()));
        let requests = request.into_inner().requests;
        let serving = pin(&self.recommender, requests.len())?;
        let call = Call { recommender: &self.recommender, serving: &serving, arrival, id: id.as_ref() };
        let rows = call.accept_all(requests.into_iter().map(|request| ready(request.try_into()))).await;
        let reservation = call.reserve(&rows, &answers, AnswerForm::Message)?;
        let message = MessageAnswer::new(&reservation);
        let outcomes = call.answer_all(rows).await;

        let (times, retry_after) = (outcomes.times(), outcomes.retry_after());
        let _permit = reservation.build_permit().await;
        let (mut results, mut turns) = (Vec::with_capacity(outcomes.0.len()), Turns::default());
        for outcome in outcomes.0 {
            results.push(message.result(outcome.map(|answered| answered.recommendation), &mut turns).await);
        }
        let mut response = Response::new(proto::RecommendBatchResponse { results });
        response.extensions_mut().insert(times);
        response.extensions_mut().insert(MessageCharge::one(reservation.built(turns.worked())));
        if let Some(seconds) = retry_after {
            response.metadata_mut().insert(header::RETRY_AFTER.as_str(), seconds.into());
        }
        Ok(response)
    }

    type RecommendStreamStream = Answers<proto::RecommendStreamResponse>;

    async fn recommend_stream(
        &self,
        request: Request<proto::RecommendStreamRequest>,
    ) -> Result<Response<Self::RecommendStreamStream>, Status> {
        let arrival = Arrival::of_message(&request);
        let (answers, id) = (Allowance::answers(request.extensions()), CallId::of(request.extensions()));
        let requests = request.into_inner().requests;
        let serving = Arc::new(pin(&self.recommender, requests.len())?);
        let call = Call { recommender: &self.recommender, serving: &serving, arrival, id: id.as_ref() };
        // Answers may wait together for the client to read, so they are bounded like a batch.
        let rows = call.accept_all(requests.into_iter().map(|request| ready(request.try_into()))).await;
        let reservation = call.reserve(&rows, &answers, AnswerForm::Message)?;
        let message = MessageAnswer::new(&reservation);
        let (charge, ticket) = reservation.split();
        // The last row to be written leaves the queue.
        let shared = Arc::new((message, ticket));
        let (count, at_once) = (rows.len(), call.rows_at_once());
        let recommender = Arc::clone(&self.recommender);
        let answer = move |(index, row): (u32, Result<Accepted, Problem>)| {
            let (recommender, serving) = (Arc::clone(&recommender), Arc::clone(&serving));
            let (shared, id) = (Arc::clone(&shared), id.clone());
            async move {
                let call = Call { recommender: &recommender, serving: &serving, arrival, id: id.as_ref() };
                let outcome = call.answer_checked(row).await.map(|answered| answered.recommendation);
                let (message, ticket) = &*shared;
                let _permit = match ticket {
                    Some(ticket) => ticket.build_permit().await,
                    None => None,
                };
                let result = message.result(outcome, &mut Turns::default()).await;
                proto::RecommendStreamResponse { index, result: Some(result) }
            }
        };
        let answers = stream::iter((0..).zip(rows).map(answer)).buffer_unordered(at_once);
        let mut response = Response::new(Answers::of(count, answers));
        response.extensions_mut().insert(MessageCharge::stream(charge));
        Ok(response)
    }

    async fn get_model(
        &self,
        _request: Request<proto::GetModelRequest>,
    ) -> Result<Response<proto::GetModelResponse>, Status> {
        let serving = self.recommender.serving().map_err(Problem::from)?;
        Ok(Response::new((&serving).into()))
    }
}
