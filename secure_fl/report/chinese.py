# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF001
"""The report in Chinese (simplified), by id: the same ids and braces as in English."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .chinese_sums import CHINESE_SUMS

__all__ = ["CHINESE"]

CHINESE: Final[Mapping[str, str]] = {
    "title": "隐私报告：{plan}",
    "subtitle": "本次运行可能向他人泄露了单条记录的多少信息，以及如何核查",
    # -- stamps
    "stamp.simulation": "模拟运行",
    "stamp.simulation.why": "所有参与方都运行在同一台机器上，使用一次性密钥：签名只能"
    "说明日志前后一致，不能说明有多个独立机构参与。",
    "stamp.insecure": "不安全",
    "stamp.insecure.why": "随机数由种子产生，可以重现：本次运行没有任何隐私可言，只能"
    "用于测试。",
    "stamp.infinity": "无隐私保证",
    "stamp.infinity.why": "至少有一次发布的 epsilon 不是有限值。",
    "stamp.infinity.reasons": "所述原因：{reasons}",
    "stamp.plain": "总和未受保护",
    "stamp.plain.why": "没有使用安全聚合：聚合方能读到每个客户端的更新。下文的声明仍然"
    "成立，因为它们不依赖安全聚合。",
    # -- claims
    "claims.heading": "声明的内容",
    "claims.lead": "在 delta 为 {delta} 时，本次运行的模型和全部消息对任何一条训练记录"
    "的暴露程度不超过 epsilon {epsilon}。epsilon 越小，能获知的单条记录信息越少。",
    "claims.lead.insecure": "随机数由种子产生：下列数字只是对计算的检验，不构成声明。",
    "claims.lead.infinity": "至少对一个客户端不能作出任何声明：epsilon 为无穷大。",
    "claims.caption": "各项声明，均按情况最差的客户端计",
    "claims.name": "声明",
    "claims.what": "保护什么",
    "claims.whom": "防范谁",
    "claims.evidence": "依据",
    "claims.evidence.proved": "已证明（以下列假设成立为前提）",
    "claims.evidence.none": "无：不作任何声明",
    "claim.record-local": "记录级，本地差分隐私",
    "claims.scope": "保护对象为{unit}：限定结果随{adjacency}而变化的程度。",
    "view.none": "不防范任何人：见上方的警告。",
    "view.record-local": "能看到全部消息和全部模型的任何人：即使聚合方与所有其他客户端"
    "合谋，并且掩码被攻破，声明依然成立。",
    "view.record-local.one-time": "能看到全部消息和全部模型的任何人：即使聚合方与所有"
    "其他客户端合谋，并且加密被攻破，声明依然成立。",
    "view.record-local.keyholder": "能看到全部消息和全部模型的任何人：即使聚合方、密钥"
    "持有方与所有其他客户端合谋，并且加密被攻破，声明依然成立。",
    "unit.record": "一个客户端的一条记录",
    "adjacency.add-or-remove-one": "增加或删除一条记录",
    "claim.consortium": "整个联盟",
    "claim.epsilon": "epsilon",
    "claim.group": "同一人在同一客户端有 {records} 条记录时的 epsilon",
    "claim.limit": "计划中的上限",
    "claim.no_amplification": "不计采样放大效应的 epsilon",
    "claim.rdp": "用第二种方法 RDP 计算的 epsilon",
    "claim.this_run": "仅本次运行的 epsilon",
    "claim.charged": "已计入隐私预算的发布次数",
    "claim.delta": "delta",
    "claim.fpr": "误报率",
    "claim.records": "记录数",
    "claim.advantage": "相对随机猜测的优势上限",
    "claim.mu": "高斯差分隐私的 mu",
    "claim.tpr": "误报率为 {fpr} 时，用过的记录被认出的比例上限",
    "claim.posterior": "先验概率为 {prior} 时后验概率的上限（例外概率不超过 delta）",
    "claim.client": "客户端",
    "claim.why_infinite": "{client}：由于一次未受保护的发布，epsilon 为无穷大。所述原"
    "因：{reason}",
    "clients.heading": "各客户端的声明",
    "clients.caption": "delta 为 {delta} 时各客户端及整个联盟的 epsilon",
    "claims.lineage": "epsilon 涵盖数据集账本（{lineage}）中计入隐私预算的全部发布，包"
    "括以往的运行。",
    "claims.lineage.thrown-away": "本次模拟结束后账本已丢弃：epsilon 只计本次运行。",
    "claims.delta-large": "delta {delta} 乘以 {records} 条记录等于 {product}：机制有可"
    "能把这么多条记录完全暴露。",
    "claims.projected": "计划为每个客户端预留 {count} 次发布。仅这些发布，单个客户端的 "
    "epsilon 为 {one}，整个联盟的 epsilon 为 {whole}；先前的运行和额外的尝试另行累加，"
    "但不超过每个客户端的上限。",
    "evidence.proved": "已证明",
    "evidence.tested": "已测试",
    "evidence.assumed": "未验证的假设",
    "assumptions.heading": "声明所依赖的条件及其依据",
    "assumption.keyholder-together": "声明不要求聚合方与密钥持有方彼此隔离：两者联手即"
    "可解密每个客户端的更新，而 epsilon 即使面对两者联手也成立。但要保证无人读到单个更"
    "新，两者必须从不联手。",
    "assumption.unchanged": "每个客户端都原样运行本软件包。",
    "assumption.noise-first": "本软件包先裁剪每条记录的梯度并加入噪声，之后才有数据离开"
    "客户端。",
    "assumption.trainer": "每个客户端的训练代码只对 private.criterion 的返回值做反向传"
    "播，逐条处理记录（不使用批次统计量），不根据精确的损失或分数作任何决定（学习率、"
    "停止、在别处输出），并且所用的初始层和预处理不是用这些记录拟合得到的。",
    "assumption.sampling-secret": "每个客户端按计划抽取批次，且他人无从得知批次中有哪"
    "些记录。",
    "assumption.csprng": "噪声和采样由计数器模式的 AES 产生，其密钥来自操作系统的安全随"
    "机数发生器。",
    "assumption.float-noise": "高斯噪声以浮点数生成；针对其最低有效位的攻击不在声明之内"
    "。更新只在舍入到网格之后才离开客户端。",
    "assumption.disjoint": "每条记录只属于一个客户端。",
    "assumption.overlap": "一条记录可以属于所有客户端；联盟的 epsilon 由各客户端累加得"
    "到。",
    "assumption.ledger-kept": "每个客户端从第一次发布起，就在同一位置、以同一数据血缘名"
    "称为这些记录保存唯一一本账本，且没有副本被回滚。",
    "assumption.no-earlier": "在本次运行之前或之外，没有发布过关于这些记录的任何内容；"
    "本次运行的账本已丢弃。",
    "overlap.disjoint": "跨客户端：每条记录只在一个客户端，因此联盟的 epsilon 是各客户"
    "端中的最大值（并行组合）。",
    "overlap.overlapping": "跨客户端：一条记录可能在多个客户端，因此联盟的 epsilon 由所"
    "有客户端的发布组合而成（顺序组合）。计划中的上限对每个客户端单独适用；对于出现在"
    "所有客户端的记录，计划预留的发布合计 epsilon 为 {projected}，其他发布另行累加。",
    "not_protected.heading": "声明不保护的内容",
    "not_protected.population": "模型对总体的认识：它也可能适用于记录从未被使用的人。",
    "not_protected.participation": "谁在何时参与了哪一轮。",
    "not_protected.public-constants": "计划本身：名义记录数、权重、各列的取值范围、采"
    "样率、步数。",
    "not_protected.other-releases": "关于同一数据、但未计入此账本的其他任何发布。",
    "not_protected.metrics": "留出的数据行：其上的分数未加噪声即公布；模拟运行中的对比"
    "也未计入隐私预算。",
    "not_protected.choices-before": "运行之前查看私有数据所作的选择：列、取值范围、网"
    "络、学习率。",
    "not_protected.poisoning": "模型本身：不防范发送有害更新的客户端。",
    "not_protected.side-channels": "客户端机器上的时间、内存和功耗侧信道。",
    # -- what the figures mean
    "meaning.heading": "数字的含义",
    "meaning.how": "最强的攻击者知道除一条以外的全部记录，并看到本次运行发送的一切。他"
    "要判断那条记录是否被使用。任何攻击都不会超过下列上限；大多数攻击远不及此。",
    "meaning.caption": "攻击者最多能做到的程度",
    "profile.picture": "其他 delta 取值下的 epsilon",
    "profile.alt": "epsilon 随 delta 变化的折线图，每个客户端一条线。整个联盟，delta "
    "与 epsilon：{values}。",
    "profile.caption": "其他 delta 取值下的 epsilon：delta 是上限失效的概率，取得越"
    "小，epsilon 越大",
    "trade_off.picture": "各误报率下，用过的记录被认出的比例",
    "trade_off.alt": "用过的记录被认出的比例上限随误报率变化的折线图，每个客户端一条线"
    "，并画有随机猜测线。整个联盟，误报率与被认出的比例：{values}。",
    "trade_off.caption": "各误报率下，用过的记录被认出的比例上限",
    "trade_off.axis.x": "误报率",
    "trade_off.axis.y": "被认出的比例上限",
    "trade_off.guessing": "随机猜测",
    "group.caption": "同一人在同一客户端有多条记录时的 epsilon，delta 与声明相同",
    # -- not claimed
    "not_claimed.heading": "未作声明的内容",
    "not_claimed.organisation": "对客户端整体不作任何声明：某机构参与了运行，以及其全部"
    "记录合起来的特征，都未被隐藏。",
    "not_claimed.sum-view": "对只看到已解出的总和的人，不声明更小的 epsilon：每个客户端"
    "各自舍入，并且要走若干本地步，因此不能把其他客户端的噪声计算在内。",
    "not_claimed.groups": "若一个人在同一客户端的记录多于声明中列出的数目，则不作任何"
    "声明。",
    "not_claimed.stopping": "epsilon 只针对所列的发布。如果发布的次数或后续运行的设置是"
    "看过先前结果之后选定的，则应以计划中每个客户端的上限为准，不应采用任何更"
    "小的数字。",
    # -- subject
    "subject.heading": "训练的对象与时间",
    "subject.caption": "本次运行。日期取自各客户端自己的时钟：各账本中属于本次运行的第"
    "一个和最后一个条目",
    "subject.field": "字段",
    "subject.value": "值",
    "subject.plan": "计划",
    "subject.kind": "模型类型",
    "subject.values": "训练的参数个数",
    "subject.frozen": "冻结部分的状态",
    "subject.frozen.none": "未注明",
    "subject.first": "账本第一条条目",
    "subject.last": "账本最后一条条目",
    "subject.never": "无",
    "subject.tool": "程序",
    "subject.libraries": "依赖库",
    "model.mlp": "多层感知机",
    "model.custom": "自定义，由成员提供",
    # -- unit
    "unit.heading": "隐私单位",
    "unit.line": "隐私单位是{unit}；相邻数据集相差的是{adjacency}。每个单位的记录数上"
    "限：{records}。可能持有它的客户端数上限：{parties}。",
    "unit.plan-statement": "这些上限是计划中的规定，由每个成员签署。各客户端在自己的数"
    "据中保证其成立；他人无法核查。",
    # -- who took part
    "parties.heading": "谁在何时参与",
    "parties.caption": "计划中的客户端。记录数是公开的名义值，并非由数据统计得到。每一"
    "步的总和都除以一个公开常数",
    "parties.name": "名称",
    "parties.records": "名义记录数",
    "parties.weight": "权重",
    "parties.normaliser": "总和的除数",
    "parties.key": "公钥",
    "grid.caption": "各轮总和包含谁的更新",
    "grid.alt": "{clients} 个客户端按轮次排列的网格图。各轮总和中的客户端数：{sums}。",
    "grid.in": "在总和中",
    "grid.out": "未包含",
    "grid.skipped": "轮次跳过",
    "rounds.caption": "各轮次，与日志一致从 0 开始编号：已解出的总和中包含谁的更新",
    "rounds.round": "轮次",
    "rounds.attempt": "尝试",
    "rounds.survivors": "总和中的客户端",
    "rounds.out": "未包含的客户端",
    "rounds.skipped": "已跳过：没有一次尝试成功",
    "rounds.none": "无",
    "rounds.some": "{of} 个中的 {count} 个",
    # -- trust
    "threat.heading": "谁能看到什么，信任谁做什么",
    "threat.masking": "保护方式：安全掩码。只要 {clients} 个客户端中与聚合方合谋的不超"
    "过 {colluding} 个，聚合方就只能解出一个约定的客户端集合的总和，除此之外什么也解不"
    "出。门限为 {threshold}，每个总和至少包含 {min_clients} 个客户端。这种保护是计算意"
    "义上的，声明并不依赖它。",
    "threat.ckks.one-time": "保护方式：使用一次性密钥的 CKKS 加密。没有人持有能解密单个"
    "客户端更新的密钥：每个客户端在每次尝试中各自生成密钥，聚合方通过安全掩码只得到一个"
    "约定的客户端集合的密钥之和。只要 {clients} 个客户端中与聚合方合谋的不超过 "
    "{colluding} 个，它就只能解出这些客户端更新的总和。门限为 {threshold}，每个总和至少"
    "包含 {min_clients} 个客户端。",
    "threat.ckks.keyholder": "保护方式：设有密钥持有方的 CKKS 加密。聚合方与密钥持有方"
    "联手可以解密每个客户端的更新；单独则都不能：聚合方有密文而无密钥，密钥持有方有密钥"
    "而无密文。密钥持有方每轮一次把 {clients} 个客户端中至少 {min_clients} 个的密钥之和"
    "交给聚合方，聚合方据此解出它们更新的总和。",
    "threat.ckks.claim": "这种保护是计算意义上的，声明并不依赖它。",
    "threat.ckks.ring": "环的次数为 {degree}，模数为 {modulus} 位：按《同态加密标准》"
    "（2018）的表格至少有 {security} 位安全性，见 protocols/ckks/SPEC.md 第 9 节。每个"
    "系数中的数值个数：{values}；每个更新的密文个数：{ciphertexts}。",
    "threat.plain": "保护方式：无。聚合方看到每个客户端的明文更新。声明不需要保护。",
    "sees.caption": "各方遵守协议时，谁能看到什么",
    "sees.who": "谁",
    "sees.what": "能看到",
    "sees.sum": "每一轮更新的总和，看不到任何单个更新",
    "sees.updates": "每个客户端的明文更新",
    "sees.models-and-own": "每一轮的模型，以及自己的数据和更新",
    "sees.keys": "每个客户端的密钥，看不到任何更新",
    "sees.sealed": "受保护的消息：只能看到其大小和时间",
    "sees.model": "模型",
    "sees.vectors": "其中保留的向量，与聚合方所见相同：持有者应算作可能的合谋者",
    "who.aggregator": "聚合方",
    "who.clients": "客户端",
    "who.keyholder": "密钥持有方",
    "who.network": "各方之间的网络",
    "who.recipients": "得到模型的任何人",
    "who.folder": "持有本次运行文件夹的任何人",
    # -- how it was made
    "mechanism.heading": "机制",
    "mechanism.line": "每个本地步：对被采样记录的梯度求和，每个梯度先按 L2 裁剪范数 "
    "{clip} 裁剪，再在每个坐标上加入标准差为 {sigma} 的高斯噪声（噪声乘数 {noise}），"
    "最后除以一个公开常数。",
    "mechanism.steps": "每次发布的本地步数：{steps}。",
    "mechanism.zero-or-charged": "梯度不是有限值的记录按零计；不是有限值的更新会终止该"
    "轮，并照常计入隐私预算。两者在外部都看不出来。",
    "mechanism.noise-only": "空批次与其他步骤一样：只有噪声。",
    "sampling.heading": "采样",
    "sampling.line": "泊松采样：在每个本地步中，每条记录以概率 {rate} 独立地被使用。",
    "sampling.full": "不采样：每一步都使用全部记录。",
    "sampling.plan-constant": "依据：采样率和步数是计划中的常数，每个成员都已签署。客"
    "户端是否确实如此采样，从外部无法看出；不计采样放大效应时，epsilon 为 {epsilon}。",
    # -- composition
    "composition.heading": "哪些发布计入隐私预算，如何累计",
    "composition.within.sequential": "在一个客户端之内，所有发布都要累计，跨越轮次、尝"
    "试和重启，无论其所在的总和是否解出。",
    "composition.across.parallel": "跨客户端不累计：每条记录只在一个客户端。",
    "composition.across.sequential": "跨客户端的发布也要累计：一条记录可能在多个客户"
    "端。",
    "composition.search.not-charged": "仅用于寻找设置的试验不计入隐私预算，除非在同一数"
    "据血缘下运行。",
    "composition.stopping.plan": "轮数由计划固定。",
    "ledger.caption": "账本：每次发布都在其噪声生成之前写入账本。下表为本次运行的发布进"
    "展到哪一步；除从未发送的以外均已计入隐私预算",
    "ledger.head": "账本头：每本账本最后一个条目的哈希值",
    "ledger.entries": "账本条目数（全部运行）",
    "ledger.reserved": "仅预留",
    "ledger.sent": "已发送",
    "ledger.omitted": "已发送，证明未解出",
    "ledger.released": "在已解出的总和中",
    "ledger.aborted": "未发送，不计入预算",
    "over.caption": "每个完成的轮次之后的 epsilon",
    "over.table": "每个完成的轮次之后的 epsilon；数字相同的客户端合为一列",
    "over.table.highest": "每个完成的轮次之后的 epsilon：最高的 {count} 条曲线。全部数"
    "据见 report.json",
    "over.alt": "每个完成的轮次之后 epsilon 的折线图，每个客户端一条线，并画有计划中的"
    "上限 {limit}。最后的值：{values}。",
    "over.infinite": "没有图：epsilon 为无穷大。",
    "over.empty": "没有图：没有完成任何轮次。",
    "over.axis.x": "轮次",
    "over.axis.y": "delta 为 {delta} 时的 epsilon",
    "over.limit": "计划中的上限",
    "accounting.heading": "epsilon 如何计算",
    "accounting.PLD": "epsilon 由隐私损失分布（PLD）在步长为 {interval} 的网格上计算；"
    "若格点过少或过多，则步长取其几分之一或若干倍。在每种网格上，epsilon 都是上界。另用"
    "其他方法核对：",
    "check.RDP": "Rényi 差分隐私（RDP），其结果不得更低。",
    "check.RDP-integer-orders": "整数阶的 Rényi 差分隐私，由本程序另行实现。",
    "answers.caption": "已知答案：已发表的 epsilon（delta 为 1e-05），由生成本报告的程"
    "序重新计算",
    "answers.id": "算例",
    "answers.expected": "应得",
    "answers.got": "算得",
    "answers.tolerance": "容差",
    "answer.sampled-pld": "采样率 0.01，噪声乘数 0.7，120 步，用 PLD（取自 TensorFlow "
    "Privacy 的测试）",
    "answer.sampled-rdp": "采样率 0.01，噪声乘数 0.7，120 步，用 RDP（取自 TensorFlow "
    "Privacy 的测试）",
    "answer.twice-pld": "不采样，噪声乘数 0.7，2 步，用 PLD（取自 TensorFlow Privacy 的"
    "测试）",
    "answer.gaussian-pld": "不采样，噪声乘数 1，1 步，用 PLD（Balle 与 Wang 2018 年的公"
    "式）",
    "answer.half-noise-pld": "不采样，噪声乘数 0.5，1 步，用 PLD（Balle 与 Wang 2018 年"
    "的公式）",
    # -- randomness and numbers
    "randomness.heading": "随机性",
    "randomness.caption": "哪个发生器产生了什么",
    "randomness.use": "用途",
    "randomness.source": "来源",
    "randomness.noise": "高斯噪声",
    "randomness.sampling": "记录采样",
    "randomness.keys": "其余各项的密钥",
    "randomness.masks": "掩码",
    "randomness.encryption": "加密",
    "randomness.fresh": "每个随机流都有新的密钥，从不重新开始。",
    "randomness.seeded": "密钥来自种子：持有种子的人可以重现相同的噪声。",
    "source.aes-ctr": "AES-128 计数器模式",
    "source.aes-256-ctr": "AES-256 计数器模式",
    "source.operating-system": "操作系统的安全随机数发生器",
    "source.seed": "种子",
    "source.none": "未使用",
    "numerics.heading": "数值",
    "numerics.grid": "噪声以浮点数生成。随后更新的每个值被截断到 -{clip} 与 {clip} 之间"
    "，并舍入到步长为 {step} 的网格（{bits} 位字）。",
    "numerics.rounding.stochastic": "随机地向上或向下舍入，平均而言不偏。",
    "numerics.place.after-noise": "截断和舍入在加噪之后进行，不看其他任何东西：不消耗 "
    "epsilon。",
    "numerics.wrap.impossible": "只要客户端遵守计划，总和不会溢出回绕：字长足以"
    "容纳每个客户端的最大值。",
    "numerics.wrong": "CKKS 自身带有噪声。只要客户端遵守其规范，它改变计划中任何一个总"
    "和的任何一个值的概率不超过 2 的 {log2} 次方。",
    # -- evidence and exceptions
    "evidence.heading": "关于实现的证据",
    "evidence.absent": "{kind}：未附。",
    "evidence.attached": "{kind}：已附，见 report.json。",
    "evidence.low": "没有任何测试能说明一次运行是私密的。攻击失败不是隐私的证据；攻击"
    "成功且超出声明，则推翻声明。",
    "conformance": "本次运行的一致性测试",
    "mutation": "变异测试",
    "audit": "实证审计",
    "exceptions.heading": "未按计划进行的事项",
    "exceptions.none": "无：没有失败的尝试，没有跳过的轮次，每次计入隐私预算的发布都在"
    "已解出的总和中。",
    "exceptions.caption": "例外事项",
    "exceptions.kind": "事项",
    "exception.failed-attempt": "一次尝试失败；其中已开始的发布照常计入隐私预算",
    "exception.skipped-round": "该轮被跳过",
    "exception.unprotected-release": "一次未受保护的发布计入了隐私预算",
    "exception.charged-not-opened": "一次计入隐私预算的发布不在任何已解出的总和中",
    "failures.caption": "失败的尝试；其隐私预算照扣",
    "failures.reason": "原因",
    "failures.culprit": "被指出的客户端",
    "failures.nobody": "无",
    # -- utility and costs
    "utility.heading": "模型效果",
    "utility.scope": "在留出的数据行上测得，不在声明之内。这些分数是留出记录的精确数字"
    "。",
    "utility.baselines": "每个用作对比的模型都是关于相同训练记录的又一次发布。epsilon "
    "没有计入它；只有注明受隐私保护的才受保护。",
    "utility.whom": "本节和 metrics.json 显示精确数字：只可将此文件夹交给有权查看这些数"
    "字的人。",
    "utility.caption": "最终模型的分数",
    "utility.caption.compared": "最终模型及其对比模型的分数",
    "utility.final": "最终模型",
    "utility.history.alt": "{name} 随轮次变化的折线图，从 {first} 到 {last}。",
    "utility.none": "未保存分数。",
    "utility.model": "模型",
    "score.accuracy": "准确率",
    "score.auc": "AUC",
    "baseline.one_member_alone": "单个成员独自训练，受隐私保护（各成员平均）",
    "baseline.pooled_non_private": "全部记录集中训练，无隐私保护",
    "costs.heading": "开销",
    "costs.scope": "本次运行全部尝试的合计，由引擎测得；没有人为其签名。",
    "costs.resumed": "运行曾中断后恢复：此前的开销不在其中。",
    "costs.none": "未保存开销数据。",
    "costs.picture": "每一步的兆字节数和秒数",
    "costs.alt": "条形图。步骤：发给聚合方的字节数、聚合方发出的字节数、秒数。{values}"
    "。",
    "costs.caption": "每一步的消息数、字节数和秒数",
    "costs.step": "步骤",
    "costs.messages": "消息数",
    "costs.bytes_up": "发给聚合方的字节数",
    "costs.bytes_down": "聚合方发出的字节数",
    "costs.seconds": "秒",
    "costs.megabytes": "兆字节",
    "costs.up": "发给聚合方",
    "costs.down": "聚合方发出",
    "step.training": "训练",
    "step.keys": "密钥",
    "step.shares": "秘密份额",
    "step.vectors": "更新",
    "step.consistency": "一致性",
    "step.unmask": "解出总和",
    "step.release": "释放密钥",
    # -- verifying
    "verify.heading": "如何核查本报告",
    "verify.how": "离线核查，只需此文件夹：secure-fl verify DIR。它根据账本重新计算每个"
    " epsilon，检查每个签名、哈希值和哈希链，并指出第一个有问题的文件。另有一个程序作同"
    "样的核查，与前者没有共用代码：python protocols/report/verify.py DIR。",
    "verify.compare": "两者都会打印下列各值：请与本页比对。计划哈希值还请通过另一渠道与"
    "某个成员自己的副本比对。",
    "verify.caption": "需要比对的内容",
    "verify.report": "报告编号",
    "verify.schema": "report.json 的模式",
    "verify.plan": "计划哈希值",
    "verify.run": "运行编号",
    "verify.model": "模型哈希值",
    "verify.start": "初始模型哈希值",
    "verify.head": "生成报告时的日志头",
    "verify.more": "仅见于 report.json",
    **CHINESE_SUMS,
}
