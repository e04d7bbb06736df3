"""The sensor launches a run for due callbacks; the run sends them and fails only without a secret."""

from dataclasses import replace

from measurement_pipeline.services import Callbacks
from measurement_pipeline.settings import SettingsError
from measurement_pipeline.vendors.callback import CallbackSender
from measurement_pipeline_tests.defs.conftest import Stage, definitions
from measurement_pipeline_tests.health.receiver import Receiver
from measurement_pipeline_tests.workbench import isrcs


def test_a_due_callback_is_sent_by_a_run_of_the_sensor(stage: Stage, receiver: Receiver):
    assert "no callback is due" in str(stage.tick("callback_sensor").skip_message)
    job = stage.submit_request({"isrcs": isrcs(1)})
    stage.bench.sql("update measurement_jobs set callback_url = %s where id = %s", receiver.url, job)
    stage.bench.sql("update measurement_jobs set state = 'done' where id = %s", job)
    assert len(stage.tick("callback_sensor").run_requests or ()) == 1

    def refuse() -> str:
        raise SettingsError("CALLBACK_SECRET is not set")

    def launch(callbacks: Callbacks) -> bool:
        stage.services = replace(stage.services, callbacks=callbacks)
        stage.definitions = definitions(stage.services)
        run = stage.definitions.resolve_job_def("send_callbacks")
        return run.execute_in_process(instance=stage.instance, raise_on_error=False).success

    sender = CallbackSender(allow_loopback=True)
    assert not launch(Callbacks(lambda: sender, refuse))
    assert launch(Callbacks(lambda: sender, lambda: "a secret of 32 characters, or so"))
    assert [event["type"] for event in receiver.posted] == ["measurement_job.done"]
