"""Loudness of programme material: ITU-R BS.1770-4 with EBU R 128 gating, by FFmpeg's ebur128 filter."""

from av.audio.frame import AudioFrame
from av.error import BlockingIOError as NotYet
from av.filter import Graph
from av.filter.context import FilterContext

_ABSOLUTE_GATE_LUFS = -70.0


class LoudnessMeter:
    """Measures a recording frame by frame, in its own rate and channels; memory holds only the filter's histogram."""

    def __init__(self) -> None:
        self._source: tuple[str, str, int] | None = None
        self._graph: Graph | None = None
        self._integrated: float | None = None

    def push(self, frame: AudioFrame) -> None:
        """Add one decoded frame; a stream that changes its format midway is measured up to the change."""
        source = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._graph is None:
            self._source, self._graph = source, _graph(*source)
        if source == self._source:
            self._graph.push(frame)
            self._read(self._graph)

    def integrated_lufs(self) -> float | None:
        """Return the integrated loudness, or None for less than one 400 ms block or nothing above the -70 LUFS gate."""
        if self._integrated is None or not self._integrated > _ABSOLUTE_GATE_LUFS:
            return None
        return self._integrated

    def _read(self, graph: Graph) -> None:
        while True:
            try:
                metadata = graph.pull().metadata
            except NotYet:
                return
            self._integrated = float(metadata["lavfi.r128.I"])


def _graph(sample_format: str, layout: str, rate: int) -> Graph:
    graph = Graph()
    source = graph.add_abuffer(sample_rate=rate, format=sample_format, layout=layout)
    meter: FilterContext = graph.add("ebur128", "metadata=1:framelog=quiet")
    sink = graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    return graph
