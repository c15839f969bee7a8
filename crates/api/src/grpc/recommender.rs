use std::sync::Arc;

use axum::http::header;
use tonic::{Request, Response, Status};

use super::answers::Answers;
use crate::Problem;
use crate::call::{Call, pin};
use crate::deadline::Arrival;
use crate::proto::canet::v1 as proto;
use crate::proto::canet::v1::recommender_server::Recommender as Methods;
use crate::validate::check_sum;
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
        let generation = pin(&self.recommender, 1)?;
        let call = Call::new(&self.recommender, &generation, arrival);
        let answered = call.answer_one(request.into_inner().into()).await?;
        let mut response = Response::new(answered.recommendation.into());
        response.extensions_mut().insert(answered.times);
        Ok(response)
    }

    async fn recommend_batch(
        &self,
        request: Request<proto::RecommendBatchRequest>,
    ) -> Result<Response<proto::RecommendBatchResponse>, Status> {
        let arrival = Arrival::of_message(&request);
        let requests = request.into_inner().requests;
        let generation = pin(&self.recommender, requests.len())?;
        let call = Call::new(&self.recommender, &generation, arrival);
        let outcomes = call.answer_all(requests.into_iter().map(|request| Ok(request.into()))).await;

        let (times, retry_after) = (outcomes.times(), outcomes.retry_after());
        let results = outcomes.0.into_iter().map(|outcome| outcome.map(|answered| answered.recommendation).into());
        let mut response = Response::new(proto::RecommendBatchResponse { results: results.collect() });
        response.extensions_mut().insert(times);
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
        let requests = request.into_inner().requests;
        let generation = pin(&self.recommender, requests.len())?;
        // Answers may wait together for the client to read, so they are bounded like a batch.
        let (items, mut ranked) = (generation.model.catalogue().len(), 0);
        let bounded = requests.into_iter().map(|request| check_sum(request.into(), items, &mut ranked));
        let rows = (0..)
            .zip(bounded)
            .map(|(index, request)| {
                let (recommender, generation) = (Arc::clone(&self.recommender), Arc::clone(&generation));
                async move {
                    let call = Call::new(&recommender, &generation, arrival);
                    let outcome = call.answer_checked(request).await.map(|answered| answered.recommendation);
                    proto::RecommendStreamResponse { index, result: Some(outcome.into()) }
                }
            })
            .collect();
        Ok(Response::new(Answers::of(rows)))
    }

    async fn get_model(
        &self,
        _request: Request<proto::GetModelRequest>,
    ) -> Result<Response<proto::GetModelResponse>, Status> {
        let generation = self.recommender.generation().map_err(Problem::from)?;
        Ok(Response::new((&*generation).into()))
    }
}
