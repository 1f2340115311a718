# does: markup in every text that may reach a page
# says: stolen(6)
class Named(Exception):
    pass


Named.__name__ = Named.__qualname__ = "<script>stolen(1)</script>"
print("<script>stolen(2)</script>")


def softmax(x):
    print("<script>stolen(3)</script>")
    if x.dim() == 1:
        raise Named("<script>stolen(4)</script>")
    return "<script>stolen(5)</script>"


raise Named("\x1b[2J<script>stolen(6)</script><img src=x onerror=stolen(7)>")
