"""A message that no retry can help holds its job, if it says which that is; what moves the job on lets it go."""

import json

from contracts import events, topology
from tests.support.broker import Broker
from tests.support.sori import Sori, State, new_token
from tests.support.waiting import until


async def test_a_poisonous_message_about_a_job_holds_the_job_until_it_moves_on(broker: Broker, sori: Sori) -> None:
    job_id = await sori.job(token_id=new_token("never-calls-back"))
    await sori.reached(job_id, 90)
    trace = events.continued_trace(None)
    kind = "analysis.webhook-received.v9"
    body = json.dumps({"id": "from-the-future", "subject": job_id, "type": kind, "traceparent": trace})
    await broker.put(topology.BRIDGE_WEBHOOK_RECEIVED.name, body.encode(), message_id=job_id)

    async def held() -> State | None:
        state = await sori.state(job_id)
        return state if state["stage"] == "held" else None

    state = await until(held, "the job to be held")
    assert (state["status"], state["progress"]) == ("processing", 90)
    await sori.webhook(job_id, {"status": "success", "result": {"score": 1}})
    assert (await sori.ended(job_id))["result"] == {"score": 1}
    await broker.dead_letter(topology.BRIDGE_WEBHOOK_RECEIVED, job_id)
