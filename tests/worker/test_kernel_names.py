from mvit.worker.kernel_names import read_kernels

DUMP = """
  %0(a) = Custom(%para1_images) {instance name: fused} primitive_attrs: {func_name: "/cache/libmvit.so:mvit_normalise"}
      : (<Tensor[UInt8], (8, 32, 32, 3)>) -> (<Tensor[Float32], (8, 32, 32, 3)>)
      # Fullname with scope: (Default/normalise-Normalise/Custom-op1)
  %1(b) = MatMul(%0) {instance name: matmul} primitive_attrs: {transpose_a: Bool(0)}
      # Fullname with scope: (Default/head-Dense/MatMul-op2)
  %2(c) = Custom(%1) {instance name: of} primitive_attrs: {func_name: "/cache/libmvit.so:mvit_adamw"}
      # Fullname with scope: (Default/Custom-op3)
"""


def test_fused_operators_have_the_names_of_their_functions(tmp_path):
    for number in (10, 9):  # of which the first graph has the lower one
        text = DUMP if number == 9 else DUMP.replace("adamw", "lion")
        (tmp_path / f"graph_build_{number}_0094.ir").write_text(text)
    first, second = read_kernels(tmp_path, num_graphs=2)
    assert first == {"Default/normalise-Normalise/Custom-op1": "normalise", "Default/Custom-op3": "adamw"}
    assert second["Default/Custom-op3"] == "lion"


def test_without_a_dump_of_each_graph_no_operator_is_renamed(tmp_path):
    (tmp_path / "graph_build_0_0094.ir").write_text(DUMP)
    assert read_kernels(tmp_path, num_graphs=2) == [{}, {}]
