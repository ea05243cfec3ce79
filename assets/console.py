"""A console log for people: what stages and the training process say, one line each, without Dagster's own events."""

import logging

import dagster as dg


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, "dagster_meta", {})
        step = meta.get("step_key") or meta.get("job_name") or "run"
        text = _text(record)
        event = meta.get("dagster_event")
        failure = getattr(event, "event_specific_data", None) if event is not None else None
        if (error := getattr(failure, "error", None)) is not None:
            text = "failed: " + str((error.cause or error).message).strip().splitlines()[0]
        return f"{self.formatTime(record, '%H:%M:%S')}  {step:<21} {text}"


def _text(record: logging.LogRecord) -> str:
    return getattr(record, "dagster_meta", {}).get("orig_message") or record.getMessage()


def _says_something(record: logging.LogRecord) -> bool:
    event = getattr(record, "dagster_meta", {}).get("dagster_event")
    if event is None:
        return not _text(record).startswith("[pipes]")  # Dagster's own, of how it is connected
    # Who interrupts a run knows why it failed.
    return bool(event.is_step_failure) and event.step_failure_data.error_source.name != "INTERRUPT"


@dg.logger({"log_level": dg.Field(str, default_value="INFO", is_required=False)}, description="One line per message.")
def plain_console(context: dg.InitLoggerContext) -> logging.Logger:
    """Return the logger of a run."""
    logger = logging.Logger("neuron_opsd", level=context.logger_config["log_level"])
    handler = logging.StreamHandler()
    handler.setFormatter(_PlainFormatter())
    handler.addFilter(_says_something)
    logger.addHandler(handler)
    return logger
