from prometheus_client import CollectorRegistry

from mimir_ingest.obs.memory_map_metrics import MemoryMapCollector


def test_areas_and_their_limit_are_those_of_the_system(tmp_path):
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "maps").write_text("00400000-00452000 r-xp\n00651000-00652000 r--p\n")
    (tmp_path / "sys" / "vm").mkdir(parents=True)
    (tmp_path / "sys" / "vm" / "max_map_count").write_text("65530\n")
    registry = CollectorRegistry()
    MemoryMapCollector(registry, proc=tmp_path)
    assert registry.get_sample_value("process_memory_map_areas") == 2
    assert registry.get_sample_value("process_memory_map_areas_limit") == 65530


def test_a_system_without_these_files_has_no_such_metrics(tmp_path):
    registry = CollectorRegistry()
    MemoryMapCollector(registry, proc=tmp_path)
    assert list(registry.collect()) == []
